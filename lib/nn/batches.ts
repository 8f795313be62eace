/** Making the batches of an epoch: shuffled, augmented, with targets and dropout masks, all drawn from one generator. */
import { drawPlacement, placeImage } from "./augmentation.ts";
import type { TrainingConfig } from "./configuration.ts";
import { writeSmoothLabel } from "./cross-entropy.ts";
import { type Random, shuffle } from "./random.ts";
import type { TrainingData } from "./training-data.ts";
import type { MaskInput } from "./training-graph.ts";
import type { TrainingBatch } from "./training-session.ts";

export interface BatchesOptions {
  readonly data: TrainingData;
  readonly config: TrainingConfig;
  /** The dropout masks to draw. */
  readonly masks: readonly MaskInput[];
  readonly random: Random;
}

/**
 * The batches of one epoch, in a new random order; images that fill no whole batch are left out. Every batch is written
 * into the same buffers: use it before asking for the next.
 */
export function* epochBatches({ data, config, masks, random }: BatchesOptions): Generator<TrainingBatch> {
  const { batchSize, labelSmoothing: smoothing } = config;
  const classes = data.classes.length;
  const size = data.channels * data.height * data.width;
  const order = Uint32Array.from(data.labels, (_, index) => index);
  shuffle(random, order);
  const batch = {
    pixels: new Uint8Array(batchSize * size),
    targets: new Float32Array(batchSize * classes),
    masks: masks.map(({ shape }) => new Float32Array(shape.reduce((product, length) => product * length, 1))),
  };
  for (let start = 0; start + batchSize <= order.length; start += batchSize) {
    for (let slot = 0; slot < batchSize; slot++) {
      const index = order[start + slot] ?? 0;
      const source = data.pixels.subarray(index * size, (index + 1) * size);
      const target = batch.pixels.subarray(slot * size, (slot + 1) * size);
      placeImage(source, target, { shape: data, placement: drawPlacement(random, config.augmentation) });
      writeSmoothLabel(batch.targets, { offset: slot * classes, classes, label: data.labels[index] ?? 0, smoothing });
    }
    for (const [index, mask] of masks.entries()) fillMask(random, mask, batch.masks[index]);
    yield batch;
  }
}

/** Each element is 0 with the mask's probability, else 1 / (1 - rate). */
export function fillMask(random: Random, { rate }: MaskInput, values: Float32Array = new Float32Array()): void {
  const threshold = rate * 2 ** 32;
  const kept = 1 / (1 - rate);
  for (let index = 0; index < values.length; index++) values[index] = random.uint32() < threshold ? 0 : kept;
}

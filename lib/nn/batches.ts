/** Making batches: shuffled, augmented, with targets and dropout masks, each from its position in the training alone. */
import { drawPlacement, placeImage } from "./augmentation.ts";
import type { TrainingConfig } from "./configuration.ts";
import { createRandom, type Random, shuffle } from "./random.ts";
import { writeSmoothLabel } from "./targets.ts";
import type { TrainingData } from "./training-data.ts";
import type { MaskInput } from "./training-graph.ts";
import type { TrainingBatch } from "./training-session.ts";

export interface BatchMakerOptions {
  readonly data: TrainingData;
  readonly config: TrainingConfig;
  /** The dropout masks to draw. */
  readonly masks: readonly MaskInput[];
  /** Indices of the images to train on. */
  readonly images: Uint32Array;
}

export interface BatchMaker {
  /** Whole batches that an epoch has; images that fill none are left out, in each epoch others. */
  readonly stepsPerEpoch: number;
  /** Writes the batch of a step, counted from 0 over the whole training, into a batch of the right size. */
  fill(step: number, target: TrainingBatch): void;
}

/** First part of the position that random numbers are drawn at, so that an option does not shift the sequence of another. */
const streams = { order: 0, placement: 1, masks: 2 } as const;

/** A maker of any batch of the training. Fastest in order, because it keeps the order of the images of one epoch. */
export function createBatchMaker({ data, config, masks, images }: BatchMakerOptions): BatchMaker {
  const { batchSize, seed, labelSmoothing: smoothing } = config;
  const stepsPerEpoch = Math.floor(images.length / batchSize);
  const classes = data.classes.length;
  const size = data.channels * data.height * data.width;
  const order = new Uint32Array(images.length);
  let orderedEpoch = -1;

  const orderImages = (epoch: number): void => {
    if (epoch === orderedEpoch) return;
    order.set(images);
    shuffle(createRandom(seed, streams.order, epoch), order);
    orderedEpoch = epoch;
  };
  return {
    stepsPerEpoch,
    fill(step, target) {
      orderImages(Math.floor(step / stepsPerEpoch));
      const first = (step % stepsPerEpoch) * batchSize;
      const placements = createRandom(seed, streams.placement, step);
      for (let slot = 0; slot < batchSize; slot++) {
        const index = order[first + slot] ?? 0;
        const source = data.pixels.subarray(index * size, (index + 1) * size);
        const placed = target.pixels.subarray(slot * size, (slot + 1) * size);
        placeImage(source, placed, { shape: data, placement: drawPlacement(placements, config.augmentation) });
        writeSmoothLabel(target.targets, {
          offset: slot * classes,
          classes,
          label: data.labels[index] ?? 0,
          smoothing,
        });
      }
      const random = createRandom(seed, streams.masks, step);
      for (const [index, mask] of masks.entries()) fillMask(random, mask, target.masks[index]);
    },
  };
}

/** The memory of one batch, of ordinary or of shared buffers. */
export function allocateBatch(
  { data, config, masks }: Omit<BatchMakerOptions, "images">,
  Memory: typeof ArrayBuffer | typeof SharedArrayBuffer = ArrayBuffer,
): TrainingBatch {
  const { batchSize } = config;
  const floats = (length: number): Float32Array => new Float32Array(new Memory(4 * length));
  return {
    pixels: new Uint8Array(new Memory(batchSize * data.channels * data.height * data.width)),
    targets: floats(batchSize * data.classes.length),
    masks: masks.map(({ shape }) => floats(shape.reduce((product, length) => product * length, 1))),
  };
}

/** Each element is 0 with the mask's probability, else 1 / (1 - rate). */
export function fillMask(random: Random, { rate }: MaskInput, values: Float32Array = new Float32Array()): void {
  const threshold = rate * 2 ** 32;
  const kept = 1 / (1 - rate);
  for (let index = 0; index < values.length; index++) values[index] = random.uint32() < threshold ? 0 : kept;
}

/** Making batches: shuffled, augmented, with targets and dropout masks, each from its position in the training alone. */
import { mixUp } from "./augmentation/mixup.ts";
import { createAugmenter } from "./augmentation.ts";
import type { TrainingConfig } from "./configuration.ts";
import { elementCount } from "./onnx/shape.ts";
import { createRandom, type Random, shuffle, streams } from "./random.ts";
import { classWeightsOf, writeSmoothLabel } from "./targets.ts";
import type { TrainingData } from "./training-data.ts";
import type { MaskInput } from "./training-graph.ts";
import type { TrainingBatch } from "./training-session.ts";

export interface BatchMakerOptions {
  readonly data: TrainingData;
  readonly config: TrainingConfig;
  /** The dropout masks to draw. */
  readonly masks: readonly MaskInput[];
  /** Indices of the images to train on, at least a batch of them. */
  readonly images: Uint32Array;
}

/** Whole batches that an epoch of these images has. Images that fill none are left out, in each epoch others. */
export function stepsPerEpochOf(images: Uint32Array, { batchSize }: Pick<TrainingConfig, "batchSize">): number {
  return Math.floor(images.length / batchSize);
}

export interface BatchMaker {
  /** Writes the batch of a step, counted from 0 over the whole training, into a batch of the right size. */
  fill(step: number, target: TrainingBatch): void;
}

/** A maker of any batch of the training. It is fastest in order, because it keeps the order of the images of one epoch. */
export function createBatchMaker({ data, config, masks, images }: BatchMakerOptions): BatchMaker {
  const { batchSize, seed } = config;
  const { mixup } = config.augmentation;
  const stepsPerEpoch = stepsPerEpochOf(images, config);
  const orderOf = createOrder(images, seed);
  const augment = createAugmenter(data, config);
  const writeTargets = createTargetWriter({ data, config, images });
  return {
    fill(step, target) {
      const epoch = Math.floor(step / stepsPerEpoch);
      const first = (step % stepsPerEpoch) * batchSize;
      const chosen = orderOf(epoch).subarray(first, first + batchSize);
      augment({ images: chosen, pixels: target.pixels, epoch, step });
      writeTargets(chosen, target.targets);
      if (mixup > 0) {
        mixUp(target, { images: batchSize, alpha: mixup, random: createRandom(seed, streams.mixup, step) });
      }
      for (const [index, mask] of masks.entries()) {
        fillMask(createRandom(seed, streams.masks, step, index), mask, target.masks[index]);
      }
    },
  };
}

/** The images in the order of an epoch. */
function createOrder(images: Uint32Array, seed: number): (epoch: number) => Uint32Array {
  const order = new Uint32Array(images.length);
  let orderedEpoch = -1;
  return (epoch) => {
    if (epoch !== orderedEpoch) {
      order.set(images);
      shuffle(createRandom(seed, streams.order, epoch), order);
      orderedEpoch = epoch;
    }
    return order;
  };
}

function createTargetWriter({ data, config, images }: Omit<BatchMakerOptions, "masks">) {
  const { labels } = data;
  const classes = data.classes.length;
  const weights = classWeightsOf(config.classWeights, { data, images });
  return (chosen: Uint32Array, targets: Float32Array): void => {
    for (const [slot, image] of chosen.entries()) {
      const label = labels[image] ?? 0;
      const [offset, weight] = [slot * classes, weights[label] ?? 1];
      writeSmoothLabel(targets, { offset, classes, label, smoothing: config.labelSmoothing, weight });
    }
  };
}

/** The memory of one batch. */
export function allocateBatch({ data, config, masks }: Omit<BatchMakerOptions, "images">): TrainingBatch {
  const { batchSize } = config;
  return {
    pixels: new Uint8Array(batchSize * data.channels * data.height * data.width),
    targets: new Float32Array(batchSize * data.classes.length),
    masks: masks.map(({ shape }) => new Float32Array(elementCount(shape))),
  };
}

/** What to hand over with a batch that goes to another thread. */
export function buffersOf({ pixels, targets, masks }: TrainingBatch): ArrayBuffer[] {
  return [pixels, targets, ...masks].map(({ buffer }) => buffer as ArrayBuffer);
}

/**
 * Each element is 0 with the mask's probability, else 1 / (1 - rate). The rate is rounded to a multiple of 2^-16, so that one
 * draw of 32 bits serves two elements; masks can be millions of numbers a batch.
 */
export function fillMask(random: Random, { rate }: MaskInput, values: Float32Array = new Float32Array()): void {
  const threshold = Math.min(2 ** 16 - 1, Math.round(rate * 2 ** 16));
  const kept = 2 ** 16 / (2 ** 16 - threshold);
  for (let index = 0; index < values.length; index += 2) {
    const bits = random.uint32();
    // The sign bit of the difference: a branch that nothing can predict would take most of the time.
    values[index] = ((threshold - 1 - (bits & 0xffff)) >>> 31) * kept;
    // Behind an odd number of elements this does nothing, as everywhere behind the end of a typed array.
    values[index + 1] = ((threshold - 1 - (bits >>> 16)) >>> 31) * kept;
  }
}

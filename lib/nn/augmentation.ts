/** Random changes to training images that leave what they show alone. */
import { createColorJitter } from "./augmentation/color-jitter.ts";
import { cutOut } from "./augmentation/cutout.ts";
import { alternatingFlip, createPlacer } from "./augmentation/placement.ts";
import type { TrainingConfig } from "./configuration.ts";
import { createRandom, type Random, streams } from "./random.ts";
import type { TrainingData } from "./training-data.ts";

/** What a batch's pixels are made of, and its position in the training. */
export interface AugmentedBatch {
  /** Indices in the data. */
  readonly images: Uint32Array;
  /** Where they go, one after the other. */
  readonly pixels: Uint8Array;
  /** Both count from 0 over the whole training. */
  readonly epoch: number;
  readonly step: number;
}

type Augment = (batch: AugmentedBatch) => void;
type AugmentingConfig = Pick<TrainingConfig, "seed" | "augmentation">;

/** Copies images of the data into a batch: mirrored and moved, then with other colours, then with a hole. What is off costs nothing. */
export function createAugmenter(data: TrainingData, config: AugmentingConfig): Augment {
  const { cutout, colorJitter } = config.augmentation;
  const stages = [placing(data, config)];
  if (colorJitter > 0) stages.push(jittering(data, config));
  if (cutout > 0) stages.push(cutting(data, config));
  return (batch) => {
    for (const stage of stages) stage(batch);
  };
}

function placing(data: TrainingData, { seed, augmentation }: AugmentingConfig): Augment {
  const { horizontalFlip, translation } = augmentation;
  const size = imageLength(data);
  const place = createPlacer(data);
  const isFlipped = flipRule(data, { seed, horizontalFlip });
  const shift = (random: Random): number => (translation === 0 ? 0 : random.integer(2 * translation + 1) - translation);
  return ({ images, pixels, epoch, step }) => {
    const flips = createRandom(seed, streams.flip, step);
    const shifts = createRandom(seed, streams.translation, step);
    for (const [slot, image] of images.entries()) {
      const placement = { flip: isFlipped(flips, image, epoch), right: shift(shifts), down: shift(shifts) };
      place({ pixels: data.pixels, offset: image * size }, { pixels, offset: slot * size }, placement);
    }
  };
}

function flipRule(
  { labels }: TrainingData,
  { seed, horizontalFlip }: { seed: number; horizontalFlip: AugmentingConfig["augmentation"]["horizontalFlip"] },
): (random: Random, image: number, epoch: number) => boolean {
  switch (horizontalFlip) {
    case "none":
      return () => false;
    case "random":
      return (random) => random.integer(2) === 1;
    case "alternating": {
      const alternates = alternatingFlip(createRandom(seed, streams.flipHalves), labels.length);
      return (_, image, epoch) => alternates(image, epoch);
    }
  }
}

function jittering(data: TrainingData, { seed, augmentation }: AugmentingConfig): Augment {
  const size = imageLength(data);
  const jitter = createColorJitter(data);
  return ({ pixels, step }) => {
    const random = createRandom(seed, streams.colorJitter, step);
    const factor = (): number => 1 + augmentation.colorJitter * (2 * random.uniform() - 1);
    for (let offset = 0; offset < pixels.length; offset += size) {
      jitter({ pixels, offset }, { brightness: factor(), contrast: factor(), saturation: factor() });
    }
  };
}

function cutting(data: TrainingData, { seed, augmentation }: AugmentingConfig): Augment {
  const size = imageLength(data);
  const fill = Uint8Array.from(data.mean, (mean) => Math.round(mean * 255));
  return ({ pixels, step }) => {
    const random = createRandom(seed, streams.cutout, step);
    for (let offset = 0; offset < pixels.length; offset += size) {
      const center = { row: random.integer(data.height), column: random.integer(data.width) };
      cutOut({ pixels, offset }, { shape: data, side: augmentation.cutout, fill, ...center });
    }
  };
}

function imageLength({ channels, height, width }: TrainingData): number {
  return channels * height * width;
}

/** A small data set that a network can learn in seconds: each class is a bright blot at its own place, in noise. */

import { resolveTrainingConfig } from "../../../lib/nn/configuration.ts";
import { createRandom } from "../../../lib/nn/random.ts";
import type { TrainingRequest } from "../../../lib/nn/training.ts";
import type { TrainingData } from "../../../lib/nn/training-data.ts";

export interface BlotOptions {
  readonly images: number;
  /** Rows and columns. Default 8. */
  readonly size?: number;
  readonly seed?: number;
}

/** Four classes in turn, three channels. */
export function blotData({ images, size = 8, seed = 3 }: BlotOptions): TrainingData {
  const random = createRandom(seed);
  const classes = ["upper left", "upper right", "lower left", "lower right"];
  const pixels = new Uint8Array(new SharedArrayBuffer(images * 3 * size * size));
  const labels = new Uint16Array(new SharedArrayBuffer(images * 2));
  for (let image = 0; image < images; image++) {
    const label = image % classes.length;
    labels[image] = label;
    for (let index = 0; index < 3 * size * size; index++) {
      const [y, x] = [Math.floor(index / size) % size, index % size];
      const inside = (y < size / 2 ? 0 : 2) + (x < size / 2 ? 0 : 1) === label;
      pixels[image * 3 * size * size + index] = random.integer(128) + (inside ? 100 : 0);
    }
  }
  const channels = 3;
  return {
    classes,
    height: size,
    width: size,
    channels,
    mean: [0.35, 0.35, 0.35],
    standardDeviation: [0.2, 0.2, 0.2],
    pixels,
    labels,
  };
}

/** The same images without colour: their first channel. */
export function greyBlotData(options: BlotOptions): TrainingData {
  const data = blotData(options);
  const area = data.height * data.width;
  const pixels = new Uint8Array(new SharedArrayBuffer(data.labels.length * area));
  for (const image of data.labels.keys()) {
    pixels.set(data.pixels.subarray(3 * image * area, (3 * image + 1) * area), image * area);
  }
  return { ...data, channels: 1, mean: [0.35], standardDeviation: [0.2], pixels };
}

/** The images of a short training that takes a second or two. */
export const shortData = blotData({ images: 128 });

/** A short training of a network, with other hyper-parameters put over its own. */
export function shortTraining(network: string, changes: object = {}): TrainingRequest {
  const overrides = {
    epochs: 4,
    batchSize: 32,
    augmentation: { horizontalFlip: "none", translation: 1 },
    intraOpThreads: 2,
  };
  return { network, data: shortData, config: resolveTrainingConfig(network, { ...overrides, ...changes }) };
}

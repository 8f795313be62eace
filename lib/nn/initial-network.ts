/** The network that a training begins with. */
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { normalizedTensor } from "./image-tensor.ts";
import type { NetworkDefinition } from "./networks/definition.ts";
import { checkImageSize } from "./plan.ts";
import { core } from "./tensorflow.ts";
import type { TrainingData } from "./training-data.ts";

/** Training images that a network may look at for its initial weights. */
const mostImages = 2000;
/** Pixels of all of them together, so that large images take no more memory than many small ones: 48 MB in colour. */
const mostPixels = 4_000_000;

/**
 * Builds a network and sets those of its initial weights that depend on the data. It follows from the seed and the images alone,
 * so a training that is resumed finds the same weights in layers that are not trained. Throws DATASET_INVALID for images that are
 * too small for the network.
 */
export function buildInitialNetwork(
  definition: NetworkDefinition,
  { data, images, seed }: { data: TrainingData; images: Uint32Array; seed: number },
): LayersModel {
  const model = definition.build({ ...data, classes: data.classes.length, seed });
  checkImageSize(model);
  core.tidy(() => definition.initialize?.(model, normalizedTensor(pixelsOf(data, sample(images, data)), data, data)));
  return model;
}

/** Evenly spaced ones, not the first, because data may be sorted by class. */
function sample(images: Uint32Array, { height, width }: TrainingData): Uint32Array {
  const affordable = Math.max(1, Math.floor(mostPixels / (height * width)));
  const count = Math.min(images.length, mostImages, affordable);
  return Uint32Array.from({ length: count }, (_, index) => images[Math.floor((index * images.length) / count)] ?? 0);
}

function pixelsOf({ channels, height, width, pixels }: TrainingData, images: Uint32Array): Uint8Array {
  const length = channels * height * width;
  const chosen = new Uint8Array(images.length * length);
  for (const [slot, image] of images.entries()) {
    chosen.set(pixels.subarray(image * length, (image + 1) * length), slot * length);
  }
  return chosen;
}

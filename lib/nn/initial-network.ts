/** The network that a training begins with. */
import type { LayersModel } from "@tensorflow/tfjs-layers";
import type { NetworkDefinition } from "./networks/definition.ts";
import { normalizationFactors } from "./preprocessing.ts";
import { core } from "./tensorflow.ts";
import type { TrainingData } from "./training-data.ts";

/** Training images that a network may look at for its initial weights. */
const mostImages = 2000;

/**
 * Builds a network and sets those of its initial weights that depend on the data. It follows from the seed and the images alone,
 * so a training that is resumed finds the same weights in layers that are not trained.
 */
export function buildInitialNetwork(
  definition: NetworkDefinition,
  { data, images, seed }: { data: TrainingData; images: Uint32Array; seed: number },
): LayersModel {
  const model = definition.build({ ...data, classes: data.classes.length, seed });
  if (definition.initialize === undefined) return model;
  const normalized = core.tidy(() => normalizedImages(data, evenlySpaced(images)));
  definition.initialize(model, normalized);
  normalized.dispose();
  return model;
}

/** Not the first ones, because data may be sorted by class. */
function evenlySpaced(images: Uint32Array): Uint32Array {
  const count = Math.min(images.length, mostImages);
  return Uint32Array.from({ length: count }, (_, index) => images[Math.floor((index * images.length) / count)] ?? 0);
}

/** Images as the network's first layer sees them, [N, H, W, C]. */
function normalizedImages(data: TrainingData, images: Uint32Array): core.Tensor4D {
  const { channels, height, width, pixels } = data;
  const { slopes, shifts } = normalizationFactors(data);
  const size = channels * height * width;
  const values = new Float32Array(images.length * size);
  for (const [slot, index] of images.entries()) {
    values.set(pixels.subarray(index * size, (index + 1) * size), slot * size);
  }
  const channelsLast = core.transpose(core.tensor4d(values, [images.length, channels, height, width]), [0, 2, 3, 1]);
  return core.add(core.mul(channelsLast, slopes), shifts);
}

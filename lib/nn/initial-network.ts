/** The network that a training begins with. */
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { AppError } from "../errors.ts";
import { normalizedTensor } from "./image-tensor.ts";
import type { NetworkDefinition, NetworkInput } from "./networks/definition.ts";
import { checkDataFits, checkImageSize } from "./plan.ts";
import { core } from "./tensorflow.ts";
import type { DataOutline, TrainingData } from "./training-data.ts";

/** Training images that a network may look at for its initial weights. */
const mostImages = 2000;
/** Pixels of all of them together, so that large images take no more memory than many small ones: 48 MB in colour. */
const mostPixels = 4_000_000;

/**
 * Builds a network and sets those of its initial weights that depend on the data. It follows from the seed and the images alone,
 * so a training that is resumed finds the same weights in layers that are not trained. Throws as `buildNetwork`.
 */
export function buildInitialNetwork(
  definition: NetworkDefinition,
  { data, images, seed }: { data: TrainingData; images: Uint32Array; seed: number },
): LayersModel {
  const model = buildNetwork(definition, { data, seed });
  core.tidy(() => definition.initialize?.(model, normalizedTensor(pixelsOf(data, sample(images, data)), data, data)));
  return model;
}

/**
 * Builds a network for a data set, of whose images only the shape matters. Throws LAYER_UNSUPPORTED for one that cannot be built,
 * DATASET_INVALID for images that are too small for it or of another shape than it takes.
 */
export function buildNetwork(
  definition: NetworkDefinition,
  { data, seed }: { data: Pick<DataOutline, "classes" | "channels" | "height" | "width">; seed: number },
): LayersModel {
  const { classes, channels, height, width } = data;
  const model = buildOrBlame(definition, { channels, height, width, classes: classes.length, seed });
  try {
    checkImageSize(model);
    checkDataFits(model, { channels, height, width, classes });
    return model;
  } catch (thrown) {
    model.dispose();
    throw thrown;
  }
}

/** TensorFlow.js knows which layers do not fit together, but not which network that is. */
function buildOrBlame(definition: NetworkDefinition, input: NetworkInput): LayersModel {
  try {
    return definition.build(input);
  } catch (thrown) {
    if (thrown instanceof AppError) throw thrown;
    const { name } = definition;
    const { channels, height, width, classes } = input;
    const reason = AppError.from(thrown).message.replace(/\.$/, "");
    throw new AppError(
      "LAYER_UNSUPPORTED",
      `network ${name} cannot be built for images of ${channels}x${height}x${width} in ${classes} classes: ${reason}; ` +
        "mend its layers, or train another network",
      { details: { network: name }, cause: thrown },
    );
  }
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

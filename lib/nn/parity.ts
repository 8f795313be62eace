/** Predictions by TensorFlow.js itself, to hold the compiled model against. */
import { type LayersModelFiles, loadLayersModel } from "./layers-model.ts";
import { permute } from "./layout.ts";
import type { ModelDescription } from "./model-description.ts";
import { normalizationFactors } from "./preprocessing.ts";
import { core } from "./tensorflow.ts";

/**
 * Probabilities [n, classes] of n images, uint8 [n, C, H, W], by the JavaScript CPU backend. It takes seconds for a few dozen images
 * of the larger networks and blocks its thread meanwhile: use it on small samples, away from anything that must answer.
 */
export async function predictWithLayersModel(
  files: LayersModelFiles,
  images: { readonly pixels: Uint8Array; readonly n: number },
  { channels, height, width, ...normalization }: ModelDescription["input"],
): Promise<Float32Array> {
  const model = await loadLayersModel(files);
  const { slopes, shifts } = normalizationFactors(normalization);
  const area = height * width;
  const normalized = Float32Array.from(images.pixels, (pixel, index) => {
    const channel = Math.floor(index / area) % channels;
    return pixel * (slopes[channel] ?? 1) + (shifts[channel] ?? 0);
  });
  const shape = [images.n, channels, height, width];
  const input = core.tensor(permute(normalized, shape, [0, 2, 3, 1]), [images.n, height, width, channels]);
  const output = core.tidy(() => model.predict(input) as core.Tensor);
  const probabilities = (await output.data()) as Float32Array;
  core.dispose([input, output]);
  model.dispose();
  return probabilities;
}

/** The largest absolute difference of two sets of probabilities. */
export function largestDifference(left: Float32Array, right: Float32Array): number {
  return left.reduce((largest, value, index) => Math.max(largest, Math.abs(value - (right[index] ?? Number.NaN))), 0);
}

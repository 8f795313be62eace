/** Predictions by TensorFlow.js itself, to hold the compiled model against. */
import { type LayersModelFiles, loadLayersModel } from "./layers-model.ts";
import { permute } from "./layout.ts";
import { type Normalization, normalizationFactors } from "./preprocessing.ts";
import { core } from "./tensorflow.ts";

/**
 * Probabilities [n, classes] of n images, uint8 [n, C, H, W], by the JavaScript CPU backend. It takes seconds for a few dozen images
 * of the larger networks and blocks its thread meanwhile: use it on small samples, away from anything that must answer.
 */
export async function predictWithLayersModel(
  files: LayersModelFiles,
  pixels: Uint8Array,
  n: number,
  normalization: Normalization,
): Promise<Float32Array> {
  const model = await loadLayersModel(files);
  const [, height = 0, width = 0, channels = 0] = (model.inputs[0]?.shape ?? []).map(Number);
  const { slopes, shifts } = normalizationFactors(normalization);
  const normalized = Float32Array.from(pixels, (pixel, index) => {
    const channel = Math.floor(index / (height * width)) % channels;
    return pixel * (slopes[channel] ?? 1) + (shifts[channel] ?? 0);
  });
  const input = core.tensor(permute(normalized, [n, channels, height, width], [0, 2, 3, 1]), [
    n,
    height,
    width,
    channels,
  ]);
  const output = core.tidy(() => model.predict(input) as core.Tensor);
  const probabilities = (await output.data()) as Float32Array;
  core.dispose([input, output]);
  model.dispose();
  return probabilities;
}

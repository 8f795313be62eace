/** Predictions by TensorFlow.js itself, to hold the compiled model against. */
import { type LayersModelFiles, loadLayersModel } from "./layers-model.ts";
import { permute } from "./permute.ts";
import { type Normalization, normalizationFactors } from "./preprocessing.ts";
import { core } from "./tensorflow.ts";

export interface ParityImages {
  /** uint8 [count, C, H, W]. */
  readonly pixels: Uint8Array;
  readonly count: number;
  readonly normalization: Normalization;
  /** Whether to take the mean over each image and its mirror image, as a mirrored model does. */
  readonly mirrored: boolean;
}

/**
 * Probabilities [count, classes] by the JavaScript CPU backend. It takes seconds for a few dozen images of the larger networks
 * and blocks its thread meanwhile: use it on small samples, away from anything that must answer.
 */
export async function predictWithLayersModel(
  files: LayersModelFiles,
  { pixels, count, normalization, mirrored }: ParityImages,
): Promise<Float32Array> {
  const model = await loadLayersModel(files);
  const [, height = 0, width = 0, channels = 0] = (model.inputs[0]?.shape ?? []).map(Number);
  const { slopes, shifts } = normalizationFactors(normalization);
  const normalized = Float32Array.from(pixels, (pixel, index) => {
    const channel = Math.floor(index / (height * width)) % channels;
    return pixel * (slopes[channel] ?? 1) + (shifts[channel] ?? 0);
  });
  const probabilities = core.tidy(() => {
    const channelsLast = permute(normalized, [count, channels, height, width], [0, 2, 3, 1]);
    const input = core.tensor4d(channelsLast, [count, height, width, channels]);
    const seen = model.predict(input) as core.Tensor;
    if (!mirrored) return seen.dataSync() as Float32Array;
    const mirror = model.predict(core.reverse(input, 2)) as core.Tensor;
    // The mean of logits: logarithms of probabilities are logits but for a constant, which the softmax takes away.
    return core.softmax(core.div(core.add(core.log(seen), core.log(mirror)), 2)).dataSync() as Float32Array;
  });
  model.dispose();
  return probabilities;
}

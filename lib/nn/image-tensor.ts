/** From images as data sets and batches have them to what a layer of TensorFlow.js reads. */
import { type Normalization, normalizationFactors } from "./preprocessing.ts";
import { core } from "./tensorflow.ts";

/**
 * uint8 pixels [N, C, H, W] as normalised floats [N, H, W, C], in one pass and without a copy in between. To the bit what our graphs
 * make of them: where maxima tie or nearly so, another rounding would send engines different ways.
 */
export function normalizedTensor(
  pixels: Uint8Array,
  { channels, height, width }: { readonly channels: number; readonly height: number; readonly width: number },
  normalization: Normalization,
): core.Tensor4D {
  const { slopes, shifts } = normalizationFactors(normalization);
  const area = height * width;
  const values = new Float32Array(pixels.length);
  for (let plane = 0; plane < pixels.length / area; plane++) {
    const channel = plane % channels;
    const [slope, shift] = [slopes[channel] ?? 1, shifts[channel] ?? 0].map(Math.fround) as [number, number];
    let target = (plane - channel) * area + channel;
    for (let source = plane * area; source < (plane + 1) * area; source++) {
      values[target] = Math.fround((pixels[source] ?? 0) * slope) + shift;
      target += channels;
    }
  }
  return core.tensor4d(values, [pixels.length / (channels * area), height, width, channels]);
}

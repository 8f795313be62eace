/** The step from pixels to what the first layer reads. It is part of every graph, so that nobody can forget it. */
import type { Graph, Value } from "./onnx/graph.ts";
import { add, cast, multiply } from "./onnx/operators.ts";

/** Mean and standard deviation of each channel, of pixel values scaled to [0, 1]. */
export interface Normalization {
  readonly mean: readonly number[];
  readonly standardDeviation: readonly number[];
}

/** (pixel / 255 - mean) / deviation as pixel * slope + shift, a pair of numbers for each channel. */
export function normalizationFactors({ mean, standardDeviation }: Normalization): {
  slopes: number[];
  shifts: number[];
} {
  return {
    slopes: standardDeviation.map((deviation) => 1 / (255 * deviation)),
    shifts: standardDeviation.map((deviation, channel) => -(mean[channel] ?? 0) / deviation),
  };
}

/** uint8 pixels [N, C, H, W] as normalised floats. */
export function normalizePixels(graph: Graph, pixels: Value, normalization: Normalization): Value {
  const { slopes, shifts } = normalizationFactors(normalization);
  const perChannel = [1, slopes.length, 1, 1];
  const slope = graph.tensor("normalization_slope", graph.float, perChannel, slopes);
  const shift = graph.tensor("normalization_shift", graph.float, perChannel, shifts);
  return add(graph, multiply(graph, cast(graph, pixels, graph.float), slope), shift);
}

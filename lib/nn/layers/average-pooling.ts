/** AveragePooling2D and GlobalAveragePooling2D. Padding does not count in the average, as in TensorFlow. */
import { z } from "zod";
import type { Graph, Value } from "../onnx/graph.ts";
import {
  convolutionTranspose,
  multiply,
  poolingAttributes,
  reduce,
  reshape,
  type Window,
  windowCount,
} from "../onnx/operators.ts";
import { fixed } from "../onnx/shape.ts";
import { type LayerDefinition, type LayerNode, noFlops } from "./definition.ts";
import { pairOption, readOptions, requireChannelsLast, windowOptions } from "./options.ts";
import { imageSize, windowFromSpec } from "./window.ts";

const options = z.object({ ...windowOptions, poolSize: pairOption });

export const averagePoolingLayer: LayerDefinition = {
  weights(node) {
    windowOf(node);
    return [];
  },
  flops: noFlops,
  infer({ graph, node, inputs: [x] }) {
    const window = windowOf(node);
    const shape = [x.shape[0] ?? "N", ...node.outputShape];
    const [y = x] = graph.node("AveragePool", [x], [{ shape, type: x.type }], {
      ...poolingAttributes(window),
      count_include_pad: 0,
    });
    return y;
  },
  train(scope) {
    const { graph, node, inputs } = scope;
    const [x] = inputs;
    return {
      output: averagePoolingLayer.infer(scope),
      backward: (gradient) => ({ inputs: [spread(graph, { gradient, x }, windowOf(node))] }),
    };
  },
};

export const globalAveragePoolingLayer: LayerDefinition = {
  weights(node) {
    requireChannelsLast(node);
    return [];
  },
  flops: noFlops,
  infer: ({ graph, inputs: [x] }) => reduce(graph, "ReduceMean", x, [2, 3]),
  train(scope) {
    const { graph, inputs } = scope;
    const [n, channels, height, width] = inputs[0].shape.map(fixed) as [number, number, number, number];
    return {
      output: globalAveragePoolingLayer.infer(scope),
      backward(gradient) {
        const pixels = new Float32Array(height * width).fill(1 / (height * width));
        const shares = graph.tensor("shares", graph.float, [1, 1, height, width], pixels);
        return { inputs: [multiply(graph, reshape(graph, gradient, [n, channels, 1, 1]), shares)] };
      },
    };
  },
};

/** Each pixel gets its share of every window it lies in: a transposed convolution with ones, each channel as an image. */
function spread(graph: Graph, { gradient, x }: { gradient: Value; x: Value }, window: Window): Value {
  const [n, channels, height, width] = x.shape.map(fixed) as [number, number, number, number];
  const [rows, columns] = [fixed(gradient.shape[2]), fixed(gradient.shape[3])];
  const shares = graph.tensor("shares", graph.float, [1, 1, rows, columns], windowShares([height, width], window));
  const kernelSize = window.kernel[0] * window.kernel[1];
  const ones = graph.tensor("ones", graph.float, [1, 1, ...window.kernel], new Float32Array(kernelSize).fill(1));
  const images = reshape(graph, multiply(graph, gradient, shares), [n * channels, 1, rows, columns]);
  const shape = [n * channels, 1, height, width];
  return reshape(graph, convolutionTranspose(graph, { gradient: images, kernel: ones, shape }, window), x.shape);
}

/** One over the number of real pixels in each window, row by row. */
function windowShares(size: readonly [number, number], window: Window): Float32Array {
  const counts = ([0, 1] as const).map((axis) =>
    Array.from({ length: windowCount(size[axis], window, axis) }, (_, index) => {
      const start = index * window.strides[axis] - window.pads[axis];
      return Math.min(start + window.kernel[axis], size[axis]) - Math.max(start, 0);
    }),
  );
  const [rows = [], columns = []] = counts;
  return Float32Array.from(rows.flatMap((row) => columns.map((column) => 1 / (row * column))));
}

function windowOf(node: LayerNode): Window {
  const { poolSize, strides, padding } = readOptions(node, options);
  return windowFromSpec({ kernel: poolSize, strides, padding, size: imageSize(node.inputShapes[0]) });
}

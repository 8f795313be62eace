/**
 * MaxPooling2D and GlobalMaxPooling2D. Where inputs tie, the first in row order has the whole gradient. MaxPooling2D of
 * TensorFlow.js does the same; its GlobalMaxPooling2D gives each of them the whole gradient, which is no subgradient.
 */
import { z } from "zod";
import type { Graph, Value } from "../onnx/graph.ts";
import { poolingAttributes, reshape, type Window, windowCount } from "../onnx/operators.ts";
import { elementCount, fixed } from "../onnx/shape.ts";
import { type LayerDefinition, type LayerNode, noFlops } from "./definition.ts";
import { pairOption, readOptions, requireChannelsLast, windowOptions } from "./options.ts";
import { imageSize, windowFromSpec } from "./window.ts";

const options = z.object({ ...windowOptions, poolSize: pairOption });

export const maxPoolingLayer = maxPooling((node) => {
  const { poolSize, strides, padding } = readOptions(node, options);
  return windowFromSpec({ kernel: poolSize, strides, padding, size: imageSize(node.inputShapes[0]) });
});

export const globalMaxPoolingLayer = maxPooling((node) => {
  requireChannelsLast(node);
  const size = imageSize(node.inputShapes[0]);
  return windowFromSpec({ kernel: size, strides: size, padding: "valid", size });
});

function maxPooling(windowOf: (node: LayerNode) => Window): LayerDefinition {
  return {
    weights(node) {
      windowOf(node);
      return [];
    },
    flops: noFlops,
    infer({ graph, node, inputs: [x] }) {
      const window = windowOf(node);
      const [y = x] = graph.node("MaxPool", [x], [pooled(x, window)], poolingAttributes(window));
      return reshape(graph, y, batchShape(x, node.outputShape));
    },
    train({ graph, node, inputs: [x] }) {
      const window = windowOf(node);
      const spec = pooled(x, window);
      const outputs = [spec, { ...spec, type: "int64" as const }];
      const [y = x, indices = x] = graph.node("MaxPool", [x], outputs, poolingAttributes(window));
      return {
        output: reshape(graph, y, batchShape(x, node.outputShape)),
        backward: (gradient) => ({
          inputs: [scatter(graph, { gradient: reshape(graph, gradient, spec.shape), indices, x }, window)],
        }),
      };
    },
  };
}

/** Puts each window's gradient where its maximum came from. Windows that overlap may meet at one pixel and add up there. */
function scatter(graph: Graph, values: { gradient: Value; indices: Value; x: Value }, window: Window): Value {
  const { gradient, indices, x } = values;
  const shape = x.shape.map(fixed);
  if (window.kernel.every((length, axis) => length <= (window.strides[axis] ?? 0))) {
    const operands = [gradient, indices, graph.integers(shape)];
    const [result = x] = graph.node("MaxUnpool", operands, [x], poolingAttributes(window));
    return result;
  }
  const count = elementCount(shape);
  const flat = [elementCount(gradient.shape)];
  const zeros = graph.node("ConstantOfShape", [graph.integers([count])], [{ shape: [count], type: x.type }]);
  const operands = [...zeros, reshape(graph, indices, flat), reshape(graph, gradient, flat)];
  const [sum = x] = graph.node("ScatterElements", operands, [{ shape: [count], type: x.type }], {
    axis: 0,
    reduction: "add",
  });
  return reshape(graph, sum, shape);
}

function pooled(x: Value, window: Window): { shape: (number | string)[]; type: Value["type"] } {
  const [n = "N", channels = 0, height, width] = x.shape;
  return {
    shape: [n, channels, windowCount(fixed(height), window, 0), windowCount(fixed(width), window, 1)],
    type: x.type,
  };
}

function batchShape(x: Value, shape: readonly number[]): (number | string)[] {
  return [x.shape[0] ?? "N", ...shape];
}

/** Activation functions: the Activation layer, ReLU as a layer of its own, and the `activation` option of other layers. */
import { z } from "zod";
import type { Graph, Value } from "../onnx/graph.ts";
import { cast, compare, multiply, unary } from "../onnx/operators.ts";
import { type LayerDefinition, type LayerNode, noFlops } from "./definition.ts";
import { absentOption, readOptions } from "./options.ts";

interface ActivationFunction {
  forward(graph: Graph, x: Value): Value;
  /** The gradient to x from the gradient to y. */
  backward(graph: Graph, values: { x: Value; y: Value; gradient: Value }): Value;
}

const relu: ActivationFunction = {
  forward: (graph, x) => unary(graph, "Relu", x),
  // Zero at zero, as in TensorFlow. `Where` would say it in one node, but took twice as long as cast and product.
  backward: (graph, { y, gradient }) =>
    multiply(graph, gradient, cast(graph, compare(graph, "Greater", y, graph.constant(0)), graph.float)),
};

const linear: ActivationFunction = {
  forward: (_graph, x) => x,
  backward: (_graph, { gradient }) => gradient,
};

/** All activation functions by the names of the Layers API. Softmax is not here: it ends a network, inside the loss. */
const activationFunctions = { linear, relu } as const satisfies Record<string, ActivationFunction>;

const names = Object.keys(activationFunctions) as (keyof typeof activationFunctions)[];
const activationOptions = z.object({ activation: z.enum(names) });
const reluOptions = z.object({ maxValue: absentOption });

export const activationLayer = elementWise(
  (node) => activationFunctions[readOptions(node, activationOptions).activation],
);

export const reluLayer = elementWise((node) => {
  readOptions(node, reluOptions);
  return relu;
});

function elementWise(functionOf: (node: LayerNode) => ActivationFunction): LayerDefinition {
  return {
    weights(node) {
      functionOf(node);
      return [];
    },
    flops: noFlops,
    infer: ({ graph, node, inputs: [x] }) => functionOf(node).forward(graph, x),
    train({ graph, node, inputs: [x] }) {
      const { forward, backward } = functionOf(node);
      const y = forward(graph, x);
      return { output: y, backward: (gradient) => ({ inputs: [backward(graph, { x, y, gradient })] }) };
    },
  };
}

/** Activation functions: the Activation layer, ReLU as a layer of its own, and the `activation` option of other layers. */
import { z } from "zod";
import type { Graph, Value } from "../onnx/graph.ts";
import { add, cast, compare, divide, hardSigmoid, multiply, scale, unary } from "../onnx/operators.ts";
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

/**
 * The exact GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415): x P(x), where P(x) = (1 + erf(x / sqrt(2))) / 2 is the
 * distribution function of the standard normal distribution.
 */
const gelu: ActivationFunction = {
  // Spelled with this very division and order, ONNX Runtime fuses the five nodes into one.
  forward(graph, x) {
    const erf = unary(graph, "Erf", divide(graph, x, graph.constant(Math.SQRT2)));
    return scale(graph, multiply(graph, x, add(graph, erf, graph.constant(1))), 0.5);
  },
  // P(x) + x exp(-x^2 / 2) / sqrt(2 pi). Each pass over memory costs as much as any other here, an erf no more than a sum:
  // so P is calculated again rather than kept, the hard sigmoid stands for a product and a sum, and the quotient for a
  // change of sign and a product.
  backward(graph, { x, gradient }) {
    const z = scale(graph, x, Math.SQRT1_2);
    const distribution = hardSigmoid(graph, unary(graph, "Erf", z), { slope: 0.5, offset: 0.5 });
    const bell = divide(graph, x, unary(graph, "Exp", multiply(graph, z, z)));
    const slope = add(graph, distribution, scale(graph, bell, 1 / Math.sqrt(2 * Math.PI)));
    return multiply(graph, gradient, slope);
  },
};

/** All activation functions by the names of the Layers API. Softmax is not here: it ends a network, inside the loss. */
const activationFunctions = { gelu, linear, relu } as const satisfies Record<string, ActivationFunction>;

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

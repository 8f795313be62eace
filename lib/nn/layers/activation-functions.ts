/**
 * Activation functions, under the names they have in the Layers API. Their backward passes are written in as few passes
 * over memory as the operators allow: a pass costs about the same whether it takes an exponential or a sum.
 */
import { type Attributes, type Graph, single, type Value } from "../onnx/graph.ts";
import { add, divide, multiply, reduce, scale, softmax, subtract, unary } from "../onnx/operators.ts";

export interface ActivationFunction {
  forward(graph: Graph, x: Value): Value;
  /** The gradient to x from the gradient to y. */
  backward(graph: Graph, values: { x: Value; y: Value; gradient: Value }): Value;
}

export const linear: ActivationFunction = {
  forward: (_graph, x) => x,
  backward: (_graph, { gradient }) => gradient,
};

export const relu: ActivationFunction = {
  forward: (graph, x) => unary(graph, "Relu", x),
  // Zero at zero, as in TensorFlow.
  backward: (graph, { y, gradient }) => multiply(graph, gradient, isPositive(graph, y)),
};

/** min(max(x, 0), maximum). */
export function boundedRelu(maximum: number): ActivationFunction {
  return {
    forward: (graph, x) => clip(graph, x, { minimum: 0, maximum }),
    backward(graph, { y, gradient }) {
      const isBelow = hardSigmoid(graph, y, { slope: -steep, offset: maximum * steep });
      return multiply(graph, multiply(graph, gradient, isPositive(graph, y)), isBelow);
    },
  };
}

/** x above zero, alpha x below. */
export function leakyRelu(alpha: number): ActivationFunction {
  return {
    forward: (graph, x) => apply(graph, "LeakyRelu", [x], { alpha: { float: alpha } }),
    backward(graph, { x, gradient }) {
      const range = { minimum: Math.min(alpha, 1), maximum: Math.max(alpha, 1) };
      const side = alpha < 1 ? steep : -steep;
      return multiply(graph, gradient, clip(graph, scale(graph, x, side), range));
    },
  };
}

/** x above zero, exp(x) - 1 below (Clevert et al. 2016, arXiv 1511.07289), the only form the Layers API has. */
export const elu: ActivationFunction = {
  forward: (graph, x) => unary(graph, "Elu", x),
  // Above zero 1, below it exp(x), which is y + 1.
  backward: (graph, { y, gradient }) => multiply(graph, gradient, hardSigmoid(graph, y, { slope: 1, offset: 1 })),
};

export const sigmoid: ActivationFunction = {
  forward: (graph, x) => unary(graph, "Sigmoid", x),
  backward: (graph, { y, gradient }) => multiply(graph, gradient, subtract(graph, y, multiply(graph, y, y))),
};

export const tanh: ActivationFunction = {
  forward: (graph, x) => unary(graph, "Tanh", x),
  backward: (graph, { y, gradient }) =>
    multiply(graph, gradient, subtract(graph, graph.constant(1), multiply(graph, y, y))),
};

/** x sigmoid(x), also called SiLU (Ramachandran et al. 2017, arXiv 1710.05941). */
export const swish: ActivationFunction = {
  forward: (graph, x) => multiply(graph, x, unary(graph, "Sigmoid", x)),
  // With s = sigmoid(x): s + x s (1 - s) = y + s (1 - y).
  backward(graph, { x, y, gradient }) {
    const rest = multiply(graph, unary(graph, "Sigmoid", x), subtract(graph, graph.constant(1), y));
    return multiply(graph, gradient, add(graph, y, rest));
  },
};

/**
 * The exact GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415): x P(x), where P(x) = (1 + erf(x / sqrt(2))) / 2 is the
 * distribution function of the standard normal distribution.
 */
export const gelu: ActivationFunction = {
  // Spelled with this very division and order, ONNX Runtime fuses the five nodes into one.
  forward(graph, x) {
    const erf = unary(graph, "Erf", divide(graph, x, graph.constant(Math.SQRT2)));
    return scale(graph, multiply(graph, x, add(graph, erf, graph.constant(1))), 0.5);
  },
  // P(x) + x exp(-x^2 / 2) / sqrt(2 pi). P is calculated again, because keeping it would undo the fusion.
  backward(graph, { x, gradient }) {
    const z = scale(graph, x, Math.SQRT1_2);
    const distribution = hardSigmoid(graph, unary(graph, "Erf", z), { slope: 0.5, offset: 0.5 });
    const bell = divide(graph, x, unary(graph, "Exp", multiply(graph, z, z)));
    const slope = add(graph, distribution, scale(graph, bell, 1 / Math.sqrt(2 * Math.PI)));
    return multiply(graph, gradient, slope);
  },
};

/** Softmax over an axis. */
export function softmaxOver(axis: number): ActivationFunction {
  return {
    forward: (graph, x) => softmax(graph, x, axis),
    // y (d - sum(y d)).
    backward(graph, { y, gradient }) {
      const sum = reduce(graph, "ReduceSum", multiply(graph, y, gradient), [axis], true);
      return multiply(graph, y, subtract(graph, gradient, sum));
    },
  };
}

/** So steep that a hard sigmoid becomes a step, 1 above 1e-30, and that products with it stay finite. */
const steep = 2 ** 100;

/** 1 where y is positive and 0 where not, in a single pass. */
const isPositive = (graph: Graph, y: Value): Value => hardSigmoid(graph, y, { slope: steep, offset: 0 });

/** max(0, min(1, slope x + offset)). Like `LeakyRelu` and `Elu`, ONNX Runtime has it for float32 only. */
function hardSigmoid(graph: Graph, x: Value, { slope, offset }: { slope: number; offset: number }): Value {
  return apply(graph, "HardSigmoid", [x], { alpha: { float: slope }, beta: { float: offset } });
}

/** min(max(x, minimum), maximum). */
function clip(graph: Graph, x: Value, { minimum, maximum }: { minimum: number; maximum: number }): Value {
  return apply(graph, "Clip", [x, graph.constant(minimum), graph.constant(maximum)]);
}

/** An element-wise operator whose result is like its first input. */
function apply(
  graph: Graph,
  operator: string,
  inputs: readonly [Value, ...Value[]],
  attributes: Attributes = {},
): Value {
  return single(graph.node(operator, inputs, [inputs[0]], attributes));
}

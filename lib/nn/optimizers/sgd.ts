/** Stochastic gradient descent with momentum, Nesterov's or classical, and decoupled weight decay. */
import type { Graph, Value } from "../onnx/graph.ts";
import { add, multiply, scale, subtract } from "../onnx/operators.ts";
import { decayed } from "./decay.ts";
import type { Optimizer, ParameterUpdate, UpdatedParameter } from "./definition.ts";

export interface SgdOptions {
  /** In [0, 1). 0 keeps no state. */
  readonly momentum: number;
  readonly nesterov: boolean;
}

/**
 * v' = momentum v + g; w' = w (1 - lr decay) - lr (g + momentum v') with Nesterov's momentum, else w (1 - lr decay) - lr v'
 * (Sutskever et al. 2013, in the form that PyTorch and TensorFlow use).
 */
export function createSgd(options: SgdOptions): Optimizer {
  return {
    slots: options.momentum === 0 ? [] : ["velocity"],
    scalars: (_step, learningRate) => ({ learningRate }),
    update(graph, update) {
      const { direction, slots } = withMomentum(graph, update, options);
      const step = multiply(graph, update.learningRate, direction);
      return { parameter: subtract(graph, decayed(graph, update), step), slots };
    },
  };
}

/** The direction of a step and what is kept for the next one: g + momentum v' or v', and v'; without momentum g and nothing. */
export function withMomentum(
  graph: Graph,
  { gradient, slots }: ParameterUpdate,
  { momentum, nesterov }: SgdOptions,
): { readonly direction: Value; readonly slots: UpdatedParameter["slots"] } {
  if (slots.velocity === undefined) return { direction: gradient, slots: {} };
  const velocity = add(graph, scale(graph, slots.velocity, momentum), gradient);
  const direction = nesterov ? add(graph, gradient, scale(graph, velocity, momentum)) : velocity;
  return { direction, slots: { velocity } };
}

/** Stochastic gradient descent with momentum, Nesterov's or classical, and decoupled weight decay. */
import { add, multiply, scale, subtract } from "../onnx/operators.ts";
import { decayed } from "./decay.ts";
import type { Optimizer } from "./definition.ts";

export interface SgdOptions {
  /** In [0, 1). 0 keeps no state. */
  readonly momentum: number;
  readonly nesterov: boolean;
}

/**
 * v' = momentum v + g; w' = w (1 - lr decay) - lr (g + momentum v') with Nesterov's momentum, else w (1 - lr decay) - lr v'
 * (Sutskever et al. 2013, in the form that PyTorch and TensorFlow use).
 */
export function createSgd({ momentum, nesterov }: SgdOptions): Optimizer {
  return {
    slots: momentum === 0 ? [] : ["velocity"],
    scalars: (_step, learningRate) => ({ learningRate }),
    update(graph, update) {
      const { gradient, slots, learningRate } = update;
      const base = decayed(graph, update);
      const step = (direction: typeof gradient) => subtract(graph, base, multiply(graph, learningRate, direction));
      if (slots.velocity === undefined) return { parameter: step(gradient), slots: {} };
      const velocity = add(graph, scale(graph, slots.velocity, momentum), gradient);
      const direction = nesterov ? add(graph, gradient, scale(graph, velocity, momentum)) : velocity;
      return { parameter: step(direction), slots: { velocity } };
    },
  };
}

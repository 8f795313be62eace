/** Adam (Kingma and Ba 2015, arXiv 1412.6980), with decoupled weight decay it is AdamW. */
import { named } from "../named.ts";
import { add, divide, multiply, scale, subtract, unary } from "../onnx/operators.ts";
import { decayed } from "./decay.ts";
import type { Optimizer } from "./definition.ts";

export interface AdamOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
}

/**
 * m' = beta1 m + (1 - beta1) g; v' = beta2 v + (1 - beta2) g^2; w' = w (1 - lr decay) - lr mHat / (sqrt(vHat) + epsilon) with
 * mHat = m' / (1 - beta1^t) and vHat = v' / (1 - beta2^t). The two corrections depend on the step t and are fed.
 */
export function createAdam({ beta1, beta2, epsilon }: AdamOptions): Optimizer {
  return {
    slots: ["first_moment", "second_moment"],
    scalars: (step, learningRate) => ({
      learningRate,
      firstCorrection: 1 / (1 - beta1 ** step),
      secondCorrection: 1 / (1 - beta2 ** step),
    }),
    update(graph, update) {
      const { gradient, slots, scalars, learningRate } = update;
      const first = add(graph, scale(graph, named(slots, "first_moment"), beta1), scale(graph, gradient, 1 - beta1));
      const square = multiply(graph, gradient, gradient);
      const second = add(graph, scale(graph, named(slots, "second_moment"), beta2), scale(graph, square, 1 - beta2));
      const mean = multiply(graph, first, named(scalars, "firstCorrection"));
      const root = unary(graph, "Sqrt", multiply(graph, second, named(scalars, "secondCorrection")));
      const direction = divide(graph, mean, add(graph, root, graph.constant(epsilon)));
      return {
        parameter: subtract(graph, decayed(graph, update), multiply(graph, learningRate, direction)),
        slots: { first_moment: first, second_moment: second },
      };
    },
  };
}

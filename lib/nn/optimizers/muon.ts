/** Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon): momentum whose direction is made orthogonal, for kernels of convolutions. */
import type { Graph, Value } from "../onnx/graph.ts";
import { add, divide, gemm, multiply, reduce, reshape, scale, subtract, unary } from "../onnx/operators.ts";
import { elementCount } from "../onnx/shape.ts";
import type { Optimizer } from "./definition.ts";
import { createSgd, type SgdOptions, withMomentum } from "./sgd.ts";

/**
 * For kernels that mix channels, as matrices of a row a filter: w' = sqrt(filters) w / |w| - lr orthogonal(d), where d is the direction that
 * SGD with momentum would take. Every step so moves all of a filter's directions by the same length, the rare ones as well, and the norm
 * that is kept sets how much of the kernel that is: a batch normalisation must follow, which makes the norm itself not matter.
 * All other parameters are updated by SGD.
 */
export function createMuon(options: SgdOptions): Optimizer {
  const sgd = createSgd(options);
  return {
    ...sgd,
    update(graph, update) {
      if (!update.orthogonal) return sgd.update(graph, update);
      const { parameter, learningRate } = update;
      const { direction, slots } = withMomentum(graph, update, options);
      const [filters = 0] = direction.shape.map(Number);
      const unit = divide(graph, parameter, norm(graph, parameter));
      const matrix = reshape(graph, direction, [filters, elementCount(direction.shape.map(Number)) / filters]);
      const step = multiply(graph, learningRate, orthogonalized(graph, matrix));
      return {
        parameter: subtract(graph, scale(graph, unit, Math.sqrt(filters)), reshape(graph, step, parameter.shape)),
        slots,
      };
    },
  };
}

/** Coefficients of the iteration, chosen by its authors to bring small singular values up fast; large ones stay within some 30 % of 1. */
export const newtonSchulz = { linear: 3.4445, cubic: -4.775, quintic: 2.0315, iterations: 3 } as const;
/** Keeps a direction of zeros what it is. */
export const tinyNorm = 1e-7;

/** The matrix with all its singular values brought near 1, by an iteration of Newton and Schulz: X' = a X + b (X Xt) X + c (X Xt)^2 X. */
function orthogonalized(graph: Graph, matrix: Value): Value {
  const { linear, cubic, quintic, iterations } = newtonSchulz;
  const [rows = 0, columns = 0] = matrix.shape.map(Number);
  // X (Xt X) is (X Xt) X: the smaller of the two products is taken.
  const isWide = rows <= columns;
  let x = divide(graph, matrix, norm(graph, matrix));
  for (let iteration = 0; iteration < iterations; iteration++) {
    const gram = gemm(graph, x, x, isWide ? { transposeRight: true } : { transposeLeft: true });
    const square = gemm(graph, gram, gram, {});
    const polynomial = add(graph, scale(graph, gram, cubic), scale(graph, square, quintic));
    const rest = isWide ? gemm(graph, polynomial, x, {}) : gemm(graph, x, polynomial, {});
    x = add(graph, scale(graph, x, linear), rest);
  }
  return x;
}

/** The Euclidean norm of all elements, never 0. */
function norm(graph: Graph, value: Value): Value {
  const axes = value.shape.map((_, axis) => axis);
  const square = reduce(graph, "ReduceSum", multiply(graph, value, value), axes);
  return add(graph, unary(graph, "Sqrt", square), graph.constant(tinyNorm));
}

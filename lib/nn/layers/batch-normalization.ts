/** BatchNormalization over the channels of images or the features of vectors (Ioffe and Szegedy 2015, arXiv 1502.03167). */
import { z } from "zod";
import { named } from "../named.ts";
import type { Graph, Value } from "../onnx/graph.ts";
import { add, binary, multiply, reduce, reshape, scale, subtract, unary } from "../onnx/operators.ts";
import { fixed } from "../onnx/shape.ts";
import { type LayerDefinition, type LayerNode, noFlops, unsupported, type WeightSpec } from "./definition.ts";
import { readOptions, regularizerOption } from "./options.ts";

const options = z.object({
  axis: z.number().int(),
  momentum: z.number().min(0).max(1),
  epsilon: z.number().positive(),
  center: z.boolean(),
  scale: z.boolean(),
  betaRegularizer: regularizerOption,
  gammaRegularizer: regularizerOption,
});

export const batchNormalizationLayer: LayerDefinition = {
  weights(node) {
    const { center, scale: scaled, betaRegularizer, gammaRegularizer } = batchNormalizationOptions(node);
    const specs: WeightSpec[] = [
      { name: "moving_mean", role: "statistic" },
      { name: "moving_variance", role: "statistic" },
    ];
    if (center) specs.unshift({ name: "beta", role: "normalization", l2: betaRegularizer });
    if (scaled) specs.unshift({ name: "gamma", role: "normalization", l2: gammaRegularizer });
    return specs;
  },
  flops: noFlops,
  infer({ graph, node, inputs: [x], weights }) {
    const { epsilon } = batchNormalizationOptions(node);
    const { gamma, beta } = affine(graph, x, weights);
    const operands = [x, gamma, beta, named(weights, "moving_mean"), named(weights, "moving_variance")];
    const [y = x] = graph.node("BatchNormalization", operands, [x], { epsilon: { float: epsilon } });
    return y;
  },
  /**
   * With M elements a channel, c = x - mean and s = 1 / sqrt(variance + epsilon): y = gamma s c + beta. The gradient to x
   * is gamma s (d - sum(d) / M - c s^2 sum(d c) / M), written as d a + c b + e with a, b and e a number a channel each,
   * because every pass over a whole tensor costs memory bandwidth and these numbers cost nothing.
   */
  train({ graph, node, inputs: [x], weights }) {
    const { momentum, epsilon } = batchNormalizationOptions(node);
    const axes = x.shape.map((_, axis) => axis).filter((axis) => axis !== 1);
    const count = axes.reduce((product, axis) => product * fixed(x.shape[axis]), 1);
    const channels = [fixed(x.shape[1])];
    const { gamma, beta } = affine(graph, x, weights);

    const mean = reduce(graph, "ReduceMean", x, axes, true);
    const centered = subtract(graph, x, mean);
    const variance = reduce(graph, "ReduceMean", multiply(graph, centered, centered), axes, true);
    const inverse = unary(graph, "Reciprocal", unary(graph, "Sqrt", add(graph, variance, graph.constant(epsilon))));
    const factor = multiply(graph, reshape(graph, gamma, mean.shape), inverse);
    const output = add(graph, multiply(graph, centered, factor), reshape(graph, beta, mean.shape));

    const moved = (name: string, batch: Value): Value =>
      movingAverage(graph, { old: named(weights, name), batch: reshape(graph, batch, channels) }, momentum);
    return {
      output,
      updates: { moving_mean: moved("moving_mean", mean), moving_variance: moved("moving_variance", variance) },
      backward(gradient) {
        const sum = reduce(graph, "ReduceSum", gradient, axes, true);
        const product = reduce(graph, "ReduceSum", multiply(graph, gradient, centered), axes, true);
        const shift = scale(graph, multiply(graph, factor, sum), -1 / count);
        const slope = scale(
          graph,
          multiply(graph, multiply(graph, factor, product), binary(graph, "Mul", inverse, inverse)),
          -1 / count,
        );
        const direct = multiply(graph, gradient, factor);
        return {
          inputs: [add(graph, add(graph, direct, multiply(graph, centered, slope)), shift)],
          weights: {
            ...(weights.gamma && { gamma: reshape(graph, multiply(graph, product, inverse), channels) }),
            ...(weights.beta && { beta: reshape(graph, sum, channels) }),
          },
        };
      },
    };
  },
};

/** The layer's options; an axis other than the channels' is not supported. */
export function batchNormalizationOptions(node: LayerNode): z.output<typeof options> {
  const rank = (node.inputShapes[0]?.length ?? 0) + 1;
  if (rank !== 2 && rank !== 4) throw unsupported(node, "works on images and vectors only");
  const channelAxes = z.union([z.literal(-1), z.literal(rank - 1)]);
  return readOptions(node, options.extend({ axis: channelAxes }));
}

function affine(graph: Graph, x: Value, weights: Readonly<Record<string, Value>>): { gamma: Value; beta: Value } {
  const channels = fixed(x.shape[1]);
  const filled = (name: string, value: number): Value =>
    graph.tensor(name, graph.float, [channels], new Float32Array(channels).fill(value));
  return { gamma: weights.gamma ?? filled("gamma", 1), beta: weights.beta ?? filled("beta", 0) };
}

/** old momentum + batch (1 - momentum), as the Layers API has it: with the biased variance. */
function movingAverage(graph: Graph, { old, batch }: { old: Value; batch: Value }, momentum: number): Value {
  return add(graph, scale(graph, old, momentum), scale(graph, batch, 1 - momentum));
}

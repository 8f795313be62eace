/** Softmax cross-entropy against distributions over the classes. */
import type { Graph, Value } from "./onnx/graph.ts";
import { argMax, cast, compare, logSoftmax, multiply, reduce, scale, softmax, subtract } from "./onnx/operators.ts";
import { fixed } from "./onnx/shape.ts";

export interface CrossEntropy {
  /** Mean over the batch of -sum(target log softmax(logits)), a scalar. The weights of images do not change what it is divided by. */
  readonly loss: Value;
  /** Number of images whose largest logit is at the target's largest share, a float scalar. */
  readonly correct: Value;
  /** Gradient of the loss to the logits: (softmax(logits) sum(target) - target) / N. */
  readonly gradient: Value;
}

/** `logits` and `targets` are [N, classes]; a row of the targets sums to the weight of its image. */
export function crossEntropy(graph: Graph, logits: Value, targets: Value): CrossEntropy {
  const batchSize = fixed(logits.shape[0]);
  const total = reduce(graph, "ReduceSum", multiply(graph, targets, logSoftmax(graph, logits)), [0, 1]);
  const hits = compare(graph, "Equal", argMax(graph, logits), argMax(graph, targets));
  const weights = reduce(graph, "ReduceSum", targets, [1], true);
  const probabilities = multiply(graph, softmax(graph, logits), weights);
  return {
    loss: scale(graph, total, -1 / batchSize),
    correct: reduce(graph, "ReduceSum", cast(graph, hits, graph.float), [0]),
    gradient: scale(graph, subtract(graph, probabilities, targets), 1 / batchSize),
  };
}

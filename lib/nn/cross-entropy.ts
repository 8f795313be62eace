/** Softmax cross-entropy against distributions over the classes. Labels become distributions in `writeSmoothLabel`. */
import type { Graph, Value } from "./onnx/graph.ts";
import { argMax, cast, compare, logSoftmax, multiply, reduce, scale, softmax, subtract } from "./onnx/operators.ts";
import { fixed } from "./onnx/shape.ts";

export interface CrossEntropy {
  /** Mean over the batch of -sum(target log softmax(logits)), a scalar. */
  readonly loss: Value;
  /** Number of images whose largest logit is at the target's largest share, a float scalar. */
  readonly correct: Value;
  /** Gradient of the loss to the logits: (softmax(logits) - target) / N, for targets that sum to 1. */
  readonly gradient: Value;
}

/** `logits` and `targets` are [N, classes]. */
export function crossEntropy(graph: Graph, logits: Value, targets: Value): CrossEntropy {
  const batchSize = fixed(logits.shape[0]);
  const total = reduce(graph, "ReduceSum", multiply(graph, targets, logSoftmax(graph, logits)), [0, 1]);
  const hits = compare(graph, "Equal", argMax(graph, logits), argMax(graph, targets));
  return {
    loss: scale(graph, total, -1 / batchSize),
    correct: reduce(graph, "ReduceSum", cast(graph, hits, graph.float), [0]),
    gradient: scale(graph, subtract(graph, softmax(graph, logits), targets), 1 / batchSize),
  };
}

/**
 * Writes the distribution of a label into `targets` at `offset`: 1 - smoothing on the label and smoothing shared equally among
 * all classes, the label's included (Szegedy et al. 2016, arXiv 1512.00567).
 */
export function writeSmoothLabel(
  targets: Float32Array,
  { offset, classes, label, smoothing }: { offset: number; classes: number; label: number; smoothing: number },
): void {
  targets.fill(smoothing / classes, offset, offset + classes);
  targets[offset + label] = 1 - smoothing + smoothing / classes;
}

/** The inference graph: pixels in, probabilities out, any batch size, nothing in it that only training needs. */
import { foldBatchNormalization } from "./batch-normalization-folding.ts";
import { runThrough } from "./forward-pass.ts";
import { findLayer } from "./layers.ts";
import { createGraph } from "./onnx/graph.ts";
import { softmax } from "./onnx/operators.ts";
import { type NetworkPlan, weightKey } from "./plan.ts";
import { type Normalization, normalizePixels } from "./preprocessing.ts";

export interface InferenceGraphOptions extends Normalization {
  /** Written into the model's `metadata_props`. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/**
 * An ONNX model with input `pixels`, uint8 [N, C, H, W], and outputs `probabilities` and `logits`, float32 [N, classes].
 */
export function buildInferenceModel(plan: NetworkPlan, options: InferenceGraphOptions): Uint8Array {
  const graph = createGraph({ name: "inference" });
  const { channels, height, width } = plan.input;
  const pixels = graph.input("pixels", "uint8", ["N", channels, height, width]);
  const logits = runThrough(foldBatchNormalization(plan), normalizePixels(graph, pixels, options), (node, inputs) => {
    const weights = node.weights.map((weight) => [
      weight.name,
      graph.tensor(weightKey(node, weight), "float32", weight.shape, weight.values),
    ]);
    return findLayer(node).infer({ graph, node, inputs, weights: Object.fromEntries(weights) });
  });
  graph.output("probabilities", softmax(graph, logits));
  graph.output("logits", logits);
  return graph.toModel({ metadata: options.metadata ?? {} });
}

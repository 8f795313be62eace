/** The inference graph: pixels in, probabilities out, any batch size, nothing in it that only training needs. */
import { foldBatchNormalization } from "./batch-normalization-folding.ts";
import { runThrough } from "./forward-pass.ts";
import { findLayer } from "./layers.ts";
import { createGraph, type Graph, single, type Value } from "./onnx/graph.ts";
import { mirrorImages, reduce, softmax } from "./onnx/operators.ts";
import { fixed } from "./onnx/shape.ts";
import { type NetworkPlan, weightKey } from "./plan.ts";
import { type Normalization, normalizePixels } from "./preprocessing.ts";

export interface InferenceGraphOptions extends Normalization {
  /**
   * Looks at each image and at its mirror image, and takes the mean of both logits: more often right, and twice the work. Default false.
   */
  readonly mirrored?: boolean;
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
  const images = normalizePixels(graph, pixels, options);
  const seen = options.mirrored ? withMirrorImages(graph, images) : images;
  const each = runThrough(foldBatchNormalization(plan), seen, (node, inputs) => {
    const weights = node.weights.map((weight) => [
      weight.name,
      graph.tensor(weightKey(node, weight), "float32", weight.shape, weight.values),
    ]);
    return findLayer(node).infer({ graph, node, inputs, weights: Object.fromEntries(weights) });
  });
  const logits = options.mirrored ? meanOfBoth(graph, each) : each;
  graph.output("probabilities", softmax(graph, logits));
  graph.output("logits", logits);
  return graph.toModel({ metadata: options.metadata ?? {} });
}

/** [N, C, H, W] and behind it the same images mirrored. */
function withMirrorImages(graph: Graph, images: Value): Value {
  const mirrored = mirrorImages(graph, images);
  return single(
    graph.node("Concat", [images, mirrored], [{ ...images, shape: images.shape.with(0, "2N") }], { axis: 0 }),
  );
}

/** [2N, classes] as the mean of its two halves, [N, classes]. */
function meanOfBoth(graph: Graph, logits: Value): Value {
  const shape = [2, "N", fixed(logits.shape[1])];
  const halves = graph.node(
    "Reshape",
    [logits, graph.integers([2, -1, fixed(logits.shape[1])])],
    [{ ...logits, shape }],
  );
  return reduce(graph, "ReduceMean", single(halves), [0]);
}

/**
 * Folding batch normalisation into the convolution or dense layer before it, for inference. With s = gamma /
 * sqrt(variance + epsilon), normalising W x + b gives (s W) x + (b - mean) s + beta: the same layer with other weights.
 */

import { batchNormalizationOptions } from "./layers/batch-normalization.ts";
import type { LayerNode, Weight } from "./layers/definition.ts";
import { inputName, type NetworkPlan } from "./plan.ts";

/** The kernel that makes a layer's outputs, and whether they lie along its outer or its inner axes in the ONNX layout. */
const foldableLayers: Readonly<Record<string, { kernel: string; outputs: "outer" | "inner" }>> = {
  Conv2D: { kernel: "kernel", outputs: "outer" },
  Dense: { kernel: "kernel", outputs: "inner" },
  DepthwiseConv2D: { kernel: "depthwise_kernel", outputs: "outer" },
  SeparableConv2D: { kernel: "pointwise_kernel", outputs: "outer" },
};

/**
 * The plan without the batch normalisations that directly follow a convolution (of any kind) or dense layer and are its only
 * readers.
 * Others stay: behind a ReLU there is nothing to fold into.
 */
export function foldBatchNormalization(plan: NetworkPlan): NetworkPlan {
  const renamed = new Map<string, string>();
  const folded = new Map<string, LayerNode>();
  const nodes: LayerNode[] = [];
  for (const node of plan.nodes) {
    const source = plan.nodes.find((candidate) => candidate.name === node.inputs[0]);
    if (node.className === "BatchNormalization" && source && isFoldable(plan, source)) {
      folded.set(source.name, foldInto(source, node));
      renamed.set(node.name, source.name);
    } else {
      nodes.push({ ...node, inputs: node.inputs.map((name) => renamed.get(name) ?? name) });
    }
  }
  return { ...plan, nodes: nodes.map((node) => renameInputs(folded.get(node.name) ?? node, renamed)) };
}

function renameInputs(node: LayerNode, renamed: ReadonlyMap<string, string>): LayerNode {
  return { ...node, inputs: node.inputs.map((name) => (name === inputName ? name : (renamed.get(name) ?? name))) };
}

function isFoldable(plan: NetworkPlan, source: LayerNode): boolean {
  const readers = plan.nodes.filter((node) => node.inputs.includes(source.name));
  return Object.hasOwn(foldableLayers, source.className) && readers.length === 1;
}

function foldInto(source: LayerNode, normalization: LayerNode): LayerNode {
  const { kernel: kernelName, outputs: side } = foldableLayers[source.className] ?? { kernel: "", outputs: "outer" };
  const kernel = find(source, kernelName);
  const mean = find(normalization, "moving_mean")?.values;
  const variance = find(normalization, "moving_variance")?.values;
  if (kernel === undefined || mean === undefined || variance === undefined) return source;
  const { epsilon } = batchNormalizationOptions(normalization);
  const [gamma, beta] = [find(normalization, "gamma")?.values, find(normalization, "beta")?.values];
  const oldBias = find(source, "bias")?.values;
  const slopes = Float64Array.from(variance, (value, k) => (gamma?.[k] ?? 1) / Math.sqrt(value + epsilon));
  const bias = Float32Array.from(
    mean,
    (value, k) => ((oldBias?.[k] ?? 0) - value) * (slopes[k] ?? 1) + (beta?.[k] ?? 0),
  );
  const perOutput = kernel.values.length / slopes.length;
  const outputOf = (index: number): number =>
    side === "outer" ? Math.floor(index / perOutput) : index % slopes.length;
  const scaled = { ...kernel, values: kernel.values.map((value, index) => value * (slopes[outputOf(index)] ?? 1)) };
  const others = source.weights.filter(({ name }) => name !== kernelName && name !== "bias");
  return {
    ...source,
    weights: [...others, scaled, { name: "bias", role: "bias", shape: [bias.length], values: bias }],
  };
}

function find(node: LayerNode, name: string): Weight | undefined {
  return node.weights.find((weight) => weight.name === name);
}

/**
 * Folding batch normalisation into the convolution or dense layer before it, for inference. With s = gamma /
 * sqrt(variance + epsilon), normalising W x + b gives (s W) x + (b - mean) s + beta: the same layer with other weights.
 */

import { batchNormalizationOptions } from "./layers/batch-normalization.ts";
import type { LayerNode, Weight } from "./layers/definition.ts";
import { inputName, type NetworkPlan } from "./plan.ts";

/** The axis of the kernel, in the ONNX layout, along which outputs lie. */
const outputAxes: Readonly<Record<string, number>> = { Conv2D: 0, Dense: 1 };

/**
 * The plan without the batch normalisations that directly follow a convolution or dense layer and are its only readers.
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
  return Object.hasOwn(outputAxes, source.className) && readers.length === 1;
}

function foldInto(source: LayerNode, normalization: LayerNode): LayerNode {
  const kernel = find(source, "kernel");
  if (kernel === undefined) return source;
  const { epsilon } = batchNormalizationOptions(normalization);
  const outputs = kernel.shape[outputAxes[source.className] ?? 0] ?? 0;
  const of = (name: string, missing: number): ((index: number) => number) => {
    const values = find(normalization, name)?.values;
    return (index) => values?.[index] ?? missing;
  };
  const [gamma, beta, mean, variance] = [of("gamma", 1), of("beta", 0), of("moving_mean", 0), of("moving_variance", 1)];
  const oldBias = find(source, "bias")?.values;
  const slopes = Float64Array.from({ length: outputs }, (_, k) => gamma(k) / Math.sqrt(variance(k) + epsilon));
  const bias = Float32Array.from(slopes, (slope, k) => ((oldBias?.[k] ?? 0) - mean(k)) * slope + beta(k));
  const scaled = { ...kernel, values: scaleOutputs(kernel, slopes, source.className) };
  return { ...source, weights: [scaled, { name: "bias", role: "bias", shape: [outputs], values: bias }] };
}

function scaleOutputs(kernel: Weight, slopes: Float64Array, className: string): Float32Array {
  const perOutput = kernel.values.length / slopes.length;
  const outputOf = (index: number): number =>
    outputAxes[className] === 0 ? Math.floor(index / perOutput) : index % slopes.length;
  return kernel.values.map((value, index) => value * (slopes[outputOf(index)] ?? 1));
}

function find(node: LayerNode, name: string): Weight | undefined {
  return node.weights.find((weight) => weight.name === name);
}

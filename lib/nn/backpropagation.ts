/** Reverse-mode differentiation over a plan: the forward pass records each layer, the backward pass goes through them in reverse. */
import { AppError } from "../errors.ts";
import { blame, runThrough } from "./forward-pass.ts";
import type { LayerNode, TrainedLayer } from "./layers/definition.ts";
import { findLayer } from "./layers.ts";
import type { Graph, Value } from "./onnx/graph.ts";
import { add } from "./onnx/operators.ts";
import { inputName, type NetworkPlan } from "./plan.ts";

/** The values of a layer's weights, by weight name. */
export type NamedValues = Readonly<Record<string, Value>>;

/** A forward pass as it was recorded. */
export interface Tape {
  readonly logits: Value;
  readonly layers: readonly { readonly node: LayerNode; readonly trained: TrainedLayer }[];
}

export interface ForwardInputs {
  /** Normalised images. */
  readonly input: Value;
  /** Weights of each node, by node name. */
  readonly weights: ReadonlyMap<string, NamedValues>;
  /** Makes the fed dropout mask of a node. */
  mask(node: LayerNode, shape: readonly number[], rate: number): Value;
}

/** Adds the forward pass of training to the graph. */
export function recordForward(graph: Graph, plan: NetworkPlan, { input, weights, mask }: ForwardInputs): Tape {
  const layers: { node: LayerNode; trained: TrainedLayer }[] = [];
  const trainable = new Set<string>();
  const logits = runThrough(plan, input, (node, inputs) => {
    const needsGradient = node.inputs.map((name) => trainable.has(name));
    const scope = { graph, node, inputs, weights: weights.get(node.name) ?? {} };
    if (isFrozen(node)) {
      if (needsGradient.includes(true)) throw frozenTooLate();
      return findLayer(node).infer(scope);
    }
    if (node.weights.length > 0 || needsGradient.includes(true)) trainable.add(node.name);
    const trained = findLayer(node).train({
      ...scope,
      needsGradient,
      mask: (rate) => mask(node, inputs[0].shape.map(Number), rate),
    });
    layers.push({ node, trained });
    return trained.output;
  });
  return { logits, layers };
}

/**
 * Whether a layer has weights that stay what they are. It then works as in inference: batch normalisation by its running statistics, as in
 * Keras (TensorFlow.js goes on with the batch's).
 */
export function isFrozen(node: LayerNode): boolean {
  return !node.trainable && node.weights.length > 0;
}

function frozenTooLate(): AppError {
  return new AppError(
    "LAYER_UNSUPPORTED",
    "it is frozen behind a layer that is trained; only the first layers can be frozen",
  );
}

/** Adds the backward pass, from the gradient to the logits; returns the gradients to the weights by node name. */
export function backpropagate(graph: Graph, tape: Tape, logitsGradient: Value): ReadonlyMap<string, NamedValues> {
  const pending = new Map<string, Value>();
  const weights = new Map<string, NamedValues>();
  const last = tape.layers.at(-1);
  if (last !== undefined) pending.set(last.node.name, logitsGradient);
  for (const { node, trained } of tape.layers.toReversed()) {
    const gradient = pending.get(node.name);
    // A layer before the first trained one gets no gradient, and needs none.
    if (gradient === undefined) continue;
    const gradients = blame(node, () => trained.backward(gradient));
    weights.set(node.name, gradients.weights ?? {});
    for (const [index, source] of node.inputs.entries()) {
      const contribution = gradients.inputs[index];
      if (contribution === undefined || source === inputName) continue;
      const sum = pending.get(source);
      pending.set(source, sum === undefined ? contribution : add(graph, sum, contribution));
    }
  }
  return weights;
}

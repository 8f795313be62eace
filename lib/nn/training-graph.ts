/**
 * The training step as one ONNX graph: forward pass, softmax cross-entropy, backward pass, optimiser. What is trained
 * (weights, running statistics, the optimiser's tensors) goes in as inputs and comes out as outputs named `next/...`.
 */
import { backpropagate, type NamedValues, recordForward } from "./backpropagation.ts";
import { crossEntropy } from "./cross-entropy.ts";
import { type LayerNode, weight as namedWeight, type Weight } from "./layers/definition.ts";
import { createGraph, type Graph, type Value } from "./onnx/graph.ts";
import { add, multiply, reduce, scale } from "./onnx/operators.ts";
import type { Optimizer } from "./optimizers/definition.ts";
import { type NetworkPlan, weightKey } from "./plan.ts";
import { type Normalization, normalizePixels } from "./preprocessing.ts";

/** A tensor that a step reads and replaces. */
export interface StateTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** What it is before the first step. */
  readonly initial: Float32Array;
}

/** A dropout mask that is fed at each step: 0 with probability `rate`, else 1 / (1 - rate). */
export interface MaskInput {
  readonly name: string;
  readonly shape: readonly number[];
  readonly rate: number;
}

/** A compiled training step. */
export interface TrainingProgram {
  /**
   * Inputs: `pixels` uint8 [N, C, H, W], `targets` float32 [N, classes] (each row sums to 1), the masks, the optimiser's
   * scalars, the state. Outputs: `loss` (mean over the batch, with L2 penalties), `correct`, and the state under `next/`.
   */
  readonly model: Uint8Array;
  readonly batchSize: number;
  readonly plan: NetworkPlan;
  readonly optimizer: Optimizer;
  readonly state: readonly StateTensor[];
  readonly masks: readonly MaskInput[];
}

export interface TrainingProgramOptions {
  readonly batchSize: number;
  readonly normalization: Normalization;
  readonly optimizer: Optimizer;
}

/** Compiles the training step of a network for one batch size. */
export function buildTrainingProgram(plan: NetworkPlan, options: TrainingProgramOptions): TrainingProgram {
  const { batchSize, optimizer } = options;
  const { channels, height, width } = plan.input;
  const graph = createGraph({ name: "training-step" });
  const pixels = graph.input("pixels", "uint8", [batchSize, channels, height, width]);
  const targets = graph.input("targets", "float32", [batchSize, plan.classes]);

  const state = createStateInputs(graph);
  const masks: MaskInput[] = [];
  const tape = recordForward(graph, plan, {
    input: normalizePixels(graph, pixels, options.normalization),
    weights: new Map(plan.nodes.map((node) => [node.name, state.weights(node)])),
    mask(node, shape, rate) {
      masks.push({ name: `${node.name}/mask`, shape, rate });
      return graph.input(`${node.name}/mask`, "float32", shape);
    },
  });
  const { loss, correct, gradient } = crossEntropy(graph, tape.logits, targets);
  const gradients = backpropagate(graph, tape, gradient);

  const penalties: Value[] = [];
  const update = createUpdater(graph, { optimizer, state, penalties });
  for (const { node, trained } of tape.layers) {
    update(node, { ...gradients.get(node.name), ...trained.updates });
  }
  graph.output(
    "loss",
    penalties.reduce((sum, penalty) => add(graph, sum, penalty), loss),
  );
  graph.output("correct", correct);
  return { model: graph.toModel(), batchSize, plan, optimizer, state: state.tensors, masks };
}

interface StateInputs {
  readonly tensors: StateTensor[];
  /** The weights of a node as inputs. */
  weights(node: LayerNode): NamedValues;
  /** One of the optimiser's tensors as an input. */
  slot(name: string, shape: readonly number[]): Value;
  /** The input of a weight that `weights` has made. */
  get(key: string): Value;
}

function createStateInputs(graph: Graph): StateInputs {
  const tensors: StateTensor[] = [];
  const inputs: Record<string, Value> = {};
  const declare = (name: string, shape: readonly number[], initial: Float32Array): Value => {
    tensors.push({ name, shape, initial });
    const value = graph.input(name, "float32", shape);
    inputs[name] = value;
    return value;
  };
  return {
    tensors,
    weights: (node) =>
      Object.fromEntries(
        node.weights.map((weight) => [weight.name, declare(weightKey(node, weight), weight.shape, weight.values)]),
      ),
    slot: (name, shape) =>
      declare(name, shape, new Float32Array(shape.reduce((product, length) => product * length, 1))),
    get: (key) => namedWeight(inputs, key),
  };
}

interface UpdaterContext {
  readonly optimizer: Optimizer;
  readonly state: StateInputs;
  /** Collects what L2 regularisers add to the loss. */
  readonly penalties: Value[];
}

/** Returns the function that adds the update of one layer's weights, given their gradients or new values by name. */
function createUpdater(graph: Graph, { optimizer, state, penalties }: UpdaterContext) {
  const names = Object.keys(optimizer.scalars(1, 1));
  const scalars = Object.fromEntries(names.map((name) => [name, graph.input(name, "float32", [])]));
  const updateWeight = (key: string, weight: Weight, gradient: Value): void => {
    const parameter = state.get(key);
    const slots = optimizer.slots.map((slot) => [slot, state.slot(`${key}/${slot}`, weight.shape)] as const);
    const updated = optimizer.update(graph, {
      parameter,
      gradient: regularized(graph, { weight, parameter, gradient, penalties }),
      slots: Object.fromEntries(slots),
      scalars,
      decays: weight.role === "weight",
    });
    graph.output(`next/${key}`, updated.parameter);
    for (const [slot, value] of Object.entries(updated.slots)) graph.output(`next/${key}/${slot}`, value);
  };
  return (node: LayerNode, values: NamedValues): void => {
    for (const weight of node.weights) {
      const value = namedWeight(values, weight.name);
      if (weight.role === "statistic") graph.output(`next/${weightKey(node, weight)}`, value);
      else updateWeight(weightKey(node, weight), weight, value);
    }
  };
}

/** Adds 2 l2 w to the gradient and l2 sum(w^2) to the penalties: the Layers API's kernel regulariser. */
function regularized(
  graph: Graph,
  options: { weight: Weight; parameter: Value; gradient: Value; penalties: Value[] },
): Value {
  const { weight, parameter, gradient, penalties } = options;
  const { l2 = 0 } = weight;
  if (l2 === 0) return gradient;
  const axes = parameter.shape.map((_, axis) => axis);
  const squares = reduce(graph, "ReduceSum", multiply(graph, parameter, parameter), axes);
  penalties.push(scale(graph, squares, l2));
  return add(graph, gradient, scale(graph, parameter, 2 * l2));
}

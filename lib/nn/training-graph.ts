/**
 * The training step as one ONNX graph: forward pass, softmax cross-entropy, backward pass, optimiser. What is trained
 * (weights, running statistics, the optimiser's tensors) goes in as inputs and comes out as outputs named `next/...`.
 */
import { backpropagate, isFrozen, type NamedValues, recordForward, type Tape } from "./backpropagation.ts";
import type { OptimizerConfig } from "./configuration.ts";
import { crossEntropy } from "./cross-entropy.ts";
import type { LayerNode, Weight } from "./layers/definition.ts";
import { named } from "./named.ts";
import { createGraph, type Graph, type Value } from "./onnx/graph.ts";
import { add, divide, maximum, multiply, reduce, scale, unary } from "./onnx/operators.ts";
import { elementCount } from "./onnx/shape.ts";
import type { Optimizer } from "./optimizers/definition.ts";
import { createOptimizer, parameterGroup } from "./optimizers.ts";
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
   * Inputs: `pixels` uint8 [N, C, H, W], `targets` float32 [N, classes] (each row sums to the image's weight, mostly 1), the masks,
   * the optimiser's scalars, the state. Outputs: `loss` (mean over the batch, with L2 penalties), `correct`, and the state under `next/`.
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
  readonly optimizer: OptimizerConfig;
}

/** Compiles the training step of a network for one batch size. */
export function buildTrainingProgram(plan: NetworkPlan, options: TrainingProgramOptions): TrainingProgram {
  const { batchSize } = options;
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

  const { parameters, penalties } = collectParameters(graph, state, { layers: tape.layers, gradients });
  const optimizer = addUpdates(graph, parameters, { config: options.optimizer, state });
  for (const { node, trained } of tape.layers) {
    for (const [name, value] of Object.entries(trained.updates ?? {})) graph.output(`next/${node.name}/${name}`, value);
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
        node.weights.map((weight) => {
          const [key, { shape, values }] = [weightKey(node, weight), weight];
          // What is frozen is a constant: ONNX Runtime then arranges it once for its fastest convolution.
          return [
            weight.name,
            isFrozen(node) ? graph.tensor(key, "float32", shape, values) : declare(key, shape, values),
          ];
        }),
      ),
    slot: (name, shape) => declare(name, shape, new Float32Array(elementCount(shape))),
    get: (key) => named(inputs, key),
  };
}

/** A parameter with the gradient of the whole loss to it, penalties included. */
interface Parameter {
  readonly key: string;
  readonly weight: Weight;
  readonly gradient: Value;
}

/** The trained parameters of all layers, and what their L2 regularisers add to the loss. */
function collectParameters(
  graph: Graph,
  state: StateInputs,
  { layers, gradients }: { layers: Tape["layers"]; gradients: ReadonlyMap<string, NamedValues> },
): { parameters: Parameter[]; penalties: Value[] } {
  const penalties: Value[] = [];
  const parameters = layers.flatMap(({ node }) =>
    node.weights
      .filter(({ role }) => role !== "statistic")
      .map((weight) => {
        const key = weightKey(node, weight);
        const gradient = named(gradients.get(node.name) ?? {}, weight.name);
        return {
          key,
          weight,
          gradient: regularized(graph, { weight, parameter: state.get(key), gradient, penalties }),
        };
      }),
  );
  return { parameters, penalties };
}

/** Adds the optimiser's update of every parameter, and returns the optimiser. */
function addUpdates(
  graph: Graph,
  parameters: readonly Parameter[],
  { config, state }: { config: OptimizerConfig; state: StateInputs },
): Optimizer {
  const optimizer = createOptimizer(config);
  const scalars = Object.fromEntries(
    Object.keys(optimizer.scalars(1, 1)).map((name) => [name, graph.input(name, "float32", [])]),
  );
  const clipping = clippingFactor(graph, parameters, config.gradientClipNorm);
  for (const { key, weight, gradient } of parameters) {
    const { learningRateFactor, ...group } = parameterGroup(config, weight);
    const slots = optimizer.slots.map((slot) => [slot, state.slot(`${key}/${slot}`, weight.shape)] as const);
    const updated = optimizer.update(graph, {
      parameter: state.get(key),
      gradient: clipping === undefined ? gradient : multiply(graph, gradient, clipping),
      slots: Object.fromEntries(slots),
      scalars,
      learningRate: scale(graph, named(scalars, "learningRate"), learningRateFactor),
      ...group,
    });
    graph.output(`next/${key}`, updated.parameter);
    for (const [slot, value] of Object.entries(updated.slots)) graph.output(`next/${key}/${slot}`, value);
  }
  return optimizer;
}

/** limit / max(limit, norm), with the norm of all gradients as one vector (Pascanu et al. 2013, arXiv 1211.5063); undefined without a limit. */
function clippingFactor(graph: Graph, parameters: readonly Parameter[], limit: number): Value | undefined {
  if (limit === 0) return undefined;
  const squares = parameters.map(({ gradient }) => sumOfSquares(graph, gradient));
  const norm = unary(
    graph,
    "Sqrt",
    squares.reduce((sum, square) => add(graph, sum, square)),
  );
  return divide(graph, graph.constant(limit), maximum(graph, norm, graph.constant(limit)));
}

function sumOfSquares(graph: Graph, value: Value): Value {
  const axes = value.shape.map((_, axis) => axis);
  return reduce(graph, "ReduceSum", multiply(graph, value, value), axes);
}

/** Adds 2 l2 w to the gradient and l2 sum(w^2) to the penalties: the Layers API's regulariser of a weight. */
function regularized(
  graph: Graph,
  options: { weight: Weight; parameter: Value; gradient: Value; penalties: Value[] },
): Value {
  const { weight, parameter, gradient, penalties } = options;
  const { l2 = 0 } = weight;
  if (l2 === 0) return gradient;
  penalties.push(scale(graph, sumOfSquares(graph, parameter), l2));
  return add(graph, gradient, scale(graph, parameter, 2 * l2));
}

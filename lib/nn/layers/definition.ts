/**
 * What a layer has to tell the compiler. One file in this folder describes one layer or a small family, and
 * `lib/nn/layers.ts` lists them all: to add a layer, write its definition and add one entry there.
 */
import { AppError } from "../../errors.ts";
import type { Graph, Value } from "../onnx/graph.ts";

/**
 * What a weight is for. Only a `weight` decays; a `statistic` is not trained but follows the batches; the others are
 * trained without decay.
 */
export type WeightRole = "weight" | "bias" | "normalization" | "statistic";

/** One of a layer's weights, in the order in which the Layers API's `getWeights()` gives them. */
export interface WeightSpec {
  /** Name within the layer, such as "kernel". */
  readonly name: string;
  readonly role: WeightRole;
  /** Axis i of the ONNX layout is axis `axes[i]` of the Layers API's. Default: the same layout. */
  readonly axes?: readonly number[];
  /** A linear map from all channels to all filters, [filters, ...]: what Muon makes orthogonal. Default false. */
  readonly mixesChannels?: boolean;
  /** Factor of the sum of squares that the layer adds to the loss. Default 0. */
  readonly l2?: number;
}

/** A weight with its values. */
export interface Weight extends WeightSpec {
  /** Shape in the ONNX layout. */
  readonly shape: readonly number[];
  /** Values in the ONNX layout. */
  readonly values: Float32Array;
}

/** A layer in a network, shapes without the batch axis: [C, H, W] for images, [F] for vectors. */
export interface LayerNode {
  /** The layer's name in the Layers API. */
  readonly name: string;
  /** Its class name, the key of the layer table. */
  readonly className: string;
  /** What its `getConfig()` gives. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Names of the nodes it reads; `inputName` of the plan is the network's input. */
  readonly inputs: readonly string[];
  readonly inputShapes: readonly (readonly number[])[];
  readonly outputShape: readonly number[];
  readonly weights: readonly Weight[];
  /** False where the Layers API says so: its weights stay what they are. */
  readonly trainable: boolean;
}

/** What a layer is compiled from. */
export interface LayerScope {
  readonly graph: Graph;
  readonly node: LayerNode;
  /** What it reads, [N, C, H, W] or [N, F]. At least one. */
  readonly inputs: readonly [Value, ...Value[]];
  /** Its weights by name, in the ONNX layout. */
  readonly weights: Readonly<Record<string, Value>>;
}

/** What a layer is compiled from in a training step. N is fixed there. */
export interface TrainingScope extends LayerScope {
  /** Which inputs need a gradient: nothing before the first trained layer does. */
  readonly needsGradient: readonly boolean[];
  /** A float input that is fed with 0 (with the given probability) and 1 / (1 - rate) at each step. */
  mask(rate: number): Value;
}

/** Gradients of the loss. */
export interface Gradients {
  /** To the inputs, in their order; undefined where none is needed. */
  readonly inputs: readonly (Value | undefined)[];
  /** To the weights, by name. */
  readonly weights?: Readonly<Record<string, Value>>;
}

/** A layer's forward pass in training, and what follows from it. */
export interface TrainedLayer {
  readonly output: Value;
  /** New values of statistics, by weight name. */
  readonly updates?: Readonly<Record<string, Value>>;
  /** Adds the backward pass to the graph. */
  backward(gradient: Value): Gradients;
}

export interface LayerDefinition {
  /** The weights the layer has with this configuration. Called first, throws LAYER_UNSUPPORTED for options we do not have. */
  weights(node: LayerNode): readonly WeightSpec[];
  /** Multiplications and additions of one image's forward pass, matrix products and convolutions only. */
  flops(node: LayerNode): number;
  /** The forward pass of inference. */
  infer(scope: LayerScope): Value;
  /** The forward pass of training. */
  train(scope: TrainingScope): TrainedLayer;
}

/** For layers without weights. */
export const noWeights = (): readonly WeightSpec[] => [];

/** For layers without matrix products or convolutions. */
export const noFlops = (): number => 0;

/** LAYER_UNSUPPORTED for a layer that the table has, used in a way it cannot. `reason` follows the layer's name. */
export function unsupported(node: LayerNode, reason: string): AppError {
  return new AppError("LAYER_UNSUPPORTED", `layer ${node.name} (${node.className}) ${reason}`, {
    details: { layer: node.name, className: node.className },
  });
}

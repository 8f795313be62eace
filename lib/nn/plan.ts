/**
 * A network as the compiler wants it: a list of layers in an order in which they can run, with weights in the ONNX
 * layout, taken from a model of the Layers API. The `activation` option of a layer becomes a node of its own, and the softmax
 * at the end is taken off: training needs the logits, and the inference graph adds it again.
 */
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { AppError } from "../errors.ts";
import type { LayerNode, Weight } from "./layers/definition.ts";
import { findLayer } from "./layers.ts";
import { formatShape } from "./onnx/shape.ts";
import { inverseAxes, permute } from "./permute.ts";
import { core } from "./tensorflow.ts";

export interface NetworkPlan {
  readonly input: { readonly channels: number; readonly height: number; readonly width: number };
  /** Number of classes: the length of the last layer's output. */
  readonly classes: number;
  /** In topological order. The last one's output are the logits. */
  readonly nodes: readonly LayerNode[];
}

/** The name under which nodes refer to the network's input. */
export const inputName = "network input";

type Layer = LayersModel["layers"][number];

/**
 * Reads a Sequential or functional model with one image input and one output. Throws LAYER_UNSUPPORTED for layers and options
 * that the compiler does not have, and for a network that does not end in a softmax over a vector; DATASET_INVALID as `checkImageSize`.
 */
export function planFromLayersModel(model: LayersModel): NetworkPlan {
  if (model.inputs.length !== 1 || model.outputs.length !== 1) {
    throw new AppError("LAYER_UNSUPPORTED", `network ${model.name} must have one input and one output`);
  }
  const input = imageInput(model);
  checkImageSize(model);
  const outputs = new Map<string, string>();
  const nodes = model.layers
    .filter((layer) => layer.getClassName() !== "InputLayer")
    .flatMap((layer) => {
      const expanded = nodesFromLayer(layer, outputs);
      outputs.set(layer.name, expanded.at(-1)?.name ?? layer.name);
      return expanded;
    });
  const last = nodes.at(-1);
  if (last === undefined || !isSoftmax(last) || last.outputShape.length !== 1) {
    throw new AppError(
      "LAYER_UNSUPPORTED",
      `network ${model.name} must end in a softmax over the classes, not in ${last?.className ?? "nothing"}`,
    );
  }
  const body = nodes.slice(0, -1);
  for (const node of body) findLayer(node).weights(node);
  return { input, classes: last.outputShape[0] ?? 0, nodes: body };
}

/**
 * Throws DATASET_INVALID, naming the first layer of which nothing would be left, for a network that was built for images that are too
 * small for it. TensorFlow.js builds it all the same, and fails when it runs.
 */
export function checkImageSize(model: LayersModel): void {
  for (const layer of model.layers) {
    const shapes = layer.inboundNodes.flatMap(({ outputShapes }) => outputShapes as (number | null)[][]);
    const empty = shapes.find((shape) => shape.some((length) => length !== null && length <= 0));
    if (empty === undefined) continue;
    const { height, width } = imageInput(model);
    const [name, className] = [layer.name, layer.getClassName()];
    throw new AppError(
      "DATASET_INVALID",
      `images of ${height}x${width} are too small for network ${model.name}: its layer ${name} (${className}) would be left with ` +
        `an output of ${formatShape(perImageShape(empty))}; prepare the data set with larger images, or train another network`,
      { details: { network: model.name, layer: name, className } },
    );
  }
}

/** Puts trained weights, by `weightKey` and in the ONNX layout, into the model they came from. */
export function writeWeights(model: LayersModel, plan: NetworkPlan, values: ReadonlyMap<string, Float32Array>): void {
  for (const node of plan.nodes) {
    if (node.weights.length === 0 || !node.trainable) continue;
    const tensors = node.weights.map((weight) => {
      const trained = values.get(weightKey(node, weight)) ?? weight.values;
      const back = inverseAxes(weight.axes ?? weight.shape.map((_, axis) => axis));
      const shape = back.map((axis) => weight.shape[axis] ?? 1);
      return core.tensor(permute(trained, weight.shape, back), shape);
    });
    model.getLayer(node.name).setWeights(tensors);
    core.dispose(tensors);
  }
}

/** The name of a weight in graphs and checkpoints: `layer/weight`. */
export function weightKey(node: LayerNode, weight: { readonly name: string }): string {
  return `${node.name}/${weight.name}`;
}

/** Number of trained parameters; running statistics and frozen layers do not count. */
export function parameterCount(plan: NetworkPlan): number {
  const trained = plan.nodes
    .flatMap((node) => (node.trainable ? node.weights : []))
    .filter((weight) => weight.role !== "statistic");
  return trained.reduce((sum, weight) => sum + weight.values.length, 0);
}

/** Floating-point operations of one image's forward pass: convolutions and matrix products, a multiplication and an addition as two. */
export function forwardFlops(plan: NetworkPlan): number {
  return plan.nodes.reduce((sum, node) => sum + findLayer(node).flops(node), 0);
}

/**
 * Throws DATASET_INVALID for a network that takes images of another shape than the data set has, or tells another number of classes apart:
 * one that was not built for whatever it is asked to.
 */
export function checkDataFits(
  model: LayersModel,
  { classes, ...shape }: NetworkPlan["input"] & { readonly classes: readonly string[] },
): void {
  const taken = describe(imageInput(model), Number(model.outputs[0]?.shape.at(-1)));
  const given = describe(shape, classes.length);
  if (taken === given) return;
  throw new AppError(
    "DATASET_INVALID",
    `network ${model.name} is for ${taken}, the data set has ${given}; prepare it otherwise, or train another network`,
    { details: { network: model.name } },
  );
}

function describe({ channels, height, width }: NetworkPlan["input"], classes: number): string {
  return `images of ${channels}x${height}x${width} in ${classes} classes`;
}

function imageInput(model: LayersModel): NetworkPlan["input"] {
  const [channels = 0, height = 0, width = 0] = perImageShape(model.inputs[0]?.shape);
  if (channels > 0 && height > 0 && width > 0) return { channels, height, width };
  throw new AppError("LAYER_UNSUPPORTED", `the input of network ${model.name} must be images of fixed size`);
}

function nodesFromLayer(layer: Layer, outputs: ReadonlyMap<string, string>): LayerNode[] {
  const config = layer.getConfig() as Record<string, unknown>;
  const bare = {
    name: layer.name,
    className: layer.getClassName(),
    config,
    inputs: inboundNames(layer, outputs),
    inputShapes: (layer.inboundNodes[0]?.inputShapes ?? []).map(perImageShape),
    outputShape: perImageShape(layer.outputShape),
    weights: [],
    trainable: layer.trainable !== false,
  } satisfies LayerNode;
  if (isSoftmax(bare)) return [bare];
  const node = { ...bare, weights: readWeights(layer, bare) };
  const { activation } = config;
  if (node.className === "Activation" || activation === undefined || activation === "linear") return [node];
  return [node, activationNode(node, activation)];
}

function activationNode(node: LayerNode, activation: unknown): LayerNode {
  return {
    name: `${node.name}/activation`,
    className: "Activation",
    config: { activation },
    inputs: [node.name],
    inputShapes: [node.outputShape],
    outputShape: node.outputShape,
    weights: [],
    trainable: true,
  };
}

function isSoftmax(node: LayerNode): boolean {
  return node.className === "Softmax" || (node.className === "Activation" && node.config.activation === "softmax");
}

function readWeights(layer: Layer, node: LayerNode): Weight[] {
  const specs = findLayer(node).weights(node);
  const tensors = layer.getWeights();
  if (specs.length !== tensors.length)
    throw unsupported(node, `has ${tensors.length} weights, ${specs.length} are expected`);
  return specs.map((spec, index) => {
    const tensor = tensors[index];
    if (tensor === undefined) throw unsupported(node, `lacks weight ${spec.name}`);
    // Asked of the weight itself: a depthwise convolution's configuration has the regulariser in the constraint's place.
    if (layer.weights[index]?.constraint) throw unsupported(node, `has a constraint on its ${spec.name}`);
    const axes = spec.axes ?? tensor.shape.map((_, axis) => axis);
    const values = permute(tensor.dataSync() as Float32Array, tensor.shape, axes);
    return { ...spec, shape: axes.map((axis) => tensor.shape[axis] ?? 1), values };
  });
}

function inboundNames(layer: Layer, outputs: ReadonlyMap<string, string>): string[] {
  const [inbound] = layer.inboundNodes;
  if (inbound === undefined || layer.inboundNodes.length > 1) {
    throw unsupported({ name: layer.name, className: layer.getClassName() }, "is used more than once");
  }
  return inbound.inboundLayers.map((source) => outputs.get(source.name) ?? inputName);
}

/** [null, H, W, C] as [C, H, W], [null, F] as [F]. */
function perImageShape(shape: unknown): number[] {
  const [, ...rest] = shape as (number | null)[];
  const lengths = rest.map((length) => length ?? 0);
  return lengths.length === 3 ? [lengths[2] ?? 0, lengths[0] ?? 0, lengths[1] ?? 0] : lengths;
}

function unsupported(layer: { readonly name: string; readonly className: string }, reason: string): AppError {
  return new AppError(
    "LAYER_UNSUPPORTED",
    `layer ${layer.name} (${layer.className}) ${reason}; the compiler cannot take it`,
    {
      details: { layer: layer.name, className: layer.className },
    },
  );
}

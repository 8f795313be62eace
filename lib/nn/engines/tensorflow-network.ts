/** A copy of a network in the form in which TensorFlow.js trains it: logits for output, dropout masks from outside. */
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { AppError } from "../../errors.ts";
import { isFrozen } from "../backpropagation.ts";
import type { LayerNode, Weight } from "../layers/definition.ts";
import { repairTopology } from "../layers-model.ts";
import { inverseAxes, permute } from "../permute.ts";
import { type NetworkPlan, weightKey } from "../plan.ts";
import { core, layers } from "../tensorflow.ts";
import type { MaskInput } from "../training-graph.ts";

/** A weight of the copy. */
export interface BoundWeight {
  /** Its name in checkpoints. */
  readonly key: string;
  readonly weight: Weight;
  readonly variable: core.Variable;
}

export interface TrainableNetwork {
  readonly masks: readonly MaskInput[];
  /** Parameters and running statistics; those of frozen layers are not among them. */
  readonly weights: readonly BoundWeight[];
  /**
   * The logits of images [N, H, W, C] in training: batch normalisation takes the batch's statistics and moves the running ones.
   * `masks` are in the order of `masks`, as the batches bring them.
   */
  apply(images: core.Tensor, masks: readonly Float32Array[]): core.Tensor;
  dispose(): void;
}

/** Copies a network, weights included. */
export async function createTrainableNetwork(
  model: LayersModel,
  plan: NetworkPlan,
  batchSize: number,
): Promise<TrainableNetwork> {
  const network = await layers.loadLayersModel(core.io.fromMemory({ modelTopology: topologyWithLogits(model) }));
  network.setWeights(model.getWeights());
  const masks = maskInputs(plan, batchSize);
  for (const node of plan.nodes) {
    if (isFrozen(node)) inferAlways(network, node.name);
    if (node.className === "BatchNormalization") completeNormalization(network, node);
  }
  let fed: readonly Float32Array[] = [];
  for (const [index, mask] of masks.entries()) {
    const layer = network.getLayer(mask.layer);
    layer.call = (inputs) => core.mul(onlyTensor(inputs), channelsLast(fed[index], mask));
  }
  return {
    masks,
    weights: bindWeights(network, plan),
    apply(images, values) {
      fed = values;
      return network.apply(images, { training: true }) as core.Tensor;
    },
    dispose: () => void network.dispose(),
  };
}

/** What is frozen works as in inference, as in the default engine: batch normalisation by its running statistics. */
function inferAlways(network: LayersModel, name: string): void {
  const layer = network.getLayer(name);
  const call = layer.call.bind(layer);
  layer.call = (inputs, options) => call(inputs, { ...options, training: false });
}

/**
 * TensorFlow.js 4.22 reads gamma and beta of every batch normalisation that it trains, also of one that was told to have
 * none. Ones and zeros in their place change nothing; they are no weights.
 */
function completeNormalization(network: LayersModel, { name, outputShape: [channels = 0] }: LayerNode): void {
  const layer = network.getLayer(name) as { gamma?: { read(): core.Tensor }; beta?: { read(): core.Tensor } };
  layer.gamma ??= { read: () => core.ones([channels]) };
  layer.beta ??= { read: () => core.zeros([channels]) };
}

/** The values of a variable in the layout of checkpoints, which is ONNX's. */
export function readVariable({ weight }: BoundWeight, variable: core.Variable): Float32Array {
  return permute(variable.dataSync() as Float32Array, variable.shape, axesOf(weight));
}

/** A tensor in the layout of TensorFlow.js from values in that of checkpoints. */
export function tensorFromValues({ key, weight }: BoundWeight, values: Float32Array | undefined): core.Tensor {
  if (values?.length !== weight.values.length) {
    throw new AppError("ARTIFACT_CORRUPT", `the checkpoint has no tensor ${key} of ${weight.values.length} elements`);
  }
  const back = inverseAxes(axesOf(weight));
  return core.tensor(
    permute(values, weight.shape, back),
    back.map((axis) => weight.shape[axis] ?? 1),
  );
}

function axesOf({ axes, shape }: Weight): readonly number[] {
  return axes ?? shape.map((_, axis) => axis);
}

interface SavedTopology {
  readonly config: { readonly layers: { class_name: string; readonly config: Record<string, unknown> }[] };
}

/**
 * The model's description with the softmax at its end taken off: the loss is exact only when it starts from the logits. TensorFlow.js
 * sorts layers by their distance from the output, so that the last is the output's, in networks with branches as well.
 */
function topologyWithLogits(model: LayersModel): SavedTopology {
  const topology = model.toJSON(undefined, false) as unknown as SavedTopology;
  repairTopology(topology, model);
  const last = topology.config.layers.at(-1);
  if (last === undefined) throw new AppError("INTERNAL", `network ${model.name} has no layers`);
  if (last.class_name === "Softmax") last.class_name = "Activation";
  last.config.activation = "linear";
  return topology;
}

type FedMask = MaskInput & { readonly layer: string };

/** In the order of the plan, so that every engine draws the same masks from the same seed. */
function maskInputs(plan: NetworkPlan, batchSize: number): FedMask[] {
  return plan.nodes
    .filter(({ className, config }) => className === "Dropout" && config.rate !== 0)
    .map(({ name, outputShape, config }) => ({
      layer: name,
      name: `${name}/mask`,
      shape: [batchSize, ...outputShape],
      rate: Number(config.rate),
    }));
}

function onlyTensor(inputs: core.Tensor | core.Tensor[]): core.Tensor {
  const [tensor] = Array.isArray(inputs) ? inputs : [inputs];
  if (tensor === undefined) throw new AppError("INTERNAL", "a dropout layer reads nothing");
  return tensor;
}

function channelsLast(values: Float32Array | undefined, { name, shape }: MaskInput): core.Tensor {
  if (values === undefined) throw new AppError("INTERNAL", `the batch lacks mask ${name}`);
  const mask = core.tensor(values, [...shape]);
  return shape.length === 4 ? core.transpose(mask, [0, 2, 3, 1]) : mask;
}

function bindWeights(network: LayersModel, plan: NetworkPlan): BoundWeight[] {
  return plan.nodes
    .filter((node) => node.weights.length > 0 && !isFrozen(node))
    .flatMap((node) => {
      const variables = network.getLayer(node.name).weights;
      return node.weights.map((weight, index) => {
        const variable = variables[index]?.read();
        if (!(variable instanceof core.Variable)) throw new AppError("INTERNAL", `${node.name} lost ${weight.name}`);
        return { key: weightKey(node, weight), weight, variable };
      });
    });
}

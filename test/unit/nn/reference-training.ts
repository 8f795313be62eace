/** A training step as TensorFlow.js does it, on its CPU backend: the oracle for ours. */
import type { LayersModel } from "@tensorflow/tfjs-layers";
import type { OptimizerConfig } from "../../../lib/nn/configuration.ts";
import { permute } from "../../../lib/nn/permute.ts";
import { type Normalization, normalizationFactors } from "../../../lib/nn/preprocessing.ts";
import { core } from "../../../lib/nn/tensorflow.ts";

export interface ReferenceBatch {
  readonly pixels: Uint8Array;
  readonly targets: Float32Array;
}

/** Returns a function that trains `model` by a step and gives the loss. Dropout layers must have rate 0. */
export function createReferenceTrainer(model: LayersModel, config: OptimizerConfig, normalization: Normalization) {
  const { learningRate, biasLearningRateFactor, gradientClipNorm } = config;
  const weightDecay = config.kind === "adam" ? 0 : config.weightDecay;
  const kernelRate = learningRate * (config.kind === "muon" ? config.otherLearningRateFactor : 1);
  const [forKernels, forBiases] = [
    createReferenceOptimizer(config, kernelRate),
    createReferenceOptimizer(config, learningRate * biasLearningRateFactor),
  ];
  // Everything is read from the model itself: from our plan of it, whatever the plan got wrong would be wrong on both sides.
  const [, height = 0, width = 0, channels = 0] = (model.inputs[0]?.shape ?? []).map(Number);
  const classes = Number(model.outputs[0]?.shape.at(-1));
  completeNormalization(model);
  const variables = model.trainableWeights.map((weight) => weight.read() as core.Variable);
  const kernels = variables.filter((_, index) => model.trainableWeights[index]?.originalName.endsWith("kernel"));
  const convolutions = kernels.filter((kernel) => config.kind === "muon" && isConvolution(kernel));
  const turnedNames = new Set(convolutions.map(({ name }) => name));
  const kernelNames = new Set(kernels.map(({ name }) => name).filter((name) => !turnedNames.has(name)));
  const turn = config.kind === "muon" ? createReferenceMuon(convolutions, config) : undefined;
  return ({ pixels, targets }: ReferenceBatch): number =>
    core.tidy(() => {
      const images = normalizedImages(pixels, { channels, height, width }, normalization);
      const { value, grads } = core.variableGrads(() => {
        const probabilities = model.apply(images, { training: true }) as core.Tensor;
        const goal = core.tensor(targets, [targets.length / classes, classes]);
        const entropy = core.neg(core.mean(core.sum(core.mul(goal, core.log(probabilities)), 1)));
        return model
          .calculateLosses()
          .reduce<core.Tensor>((loss, penalty) => core.add(loss, penalty), entropy) as core.Scalar;
      }, variables);
      for (const kernel of kernels) {
        if (kernelNames.has(kernel.name)) kernel.assign(core.mul(kernel, 1 - kernelRate * weightDecay));
      }
      const clipped = clipGradients(grads, gradientClipNorm);
      turn?.(clipped);
      forKernels.applyGradients(pick(clipped, (name) => kernelNames.has(name)));
      forBiases.applyGradients(pick(clipped, (name) => !kernelNames.has(name) && !turnedNames.has(name)));
      return value.dataSync()[0] ?? Number.NaN;
    });
}

/** TensorFlow.js reads slope and shift of every batch normalisation that it trains, also of one that was told to have none. */
function completeNormalization(model: LayersModel): void {
  type Constant = { read(): core.Tensor };
  for (const layer of model.layers.filter((candidate) => candidate.getClassName() === "BatchNormalization")) {
    const channels = Number(layer.outputShape.at(-1));
    const normalization = layer as { gamma?: Constant; beta?: Constant };
    normalization.gamma ??= { read: () => core.ones([channels]) };
    normalization.beta ??= { read: () => core.zeros([channels]) };
  }
}

function createReferenceOptimizer(config: OptimizerConfig, learningRate: number): core.Optimizer {
  if (config.kind === "sgd") return core.train.momentum(learningRate, config.momentum, config.nesterov);
  if (config.kind === "muon") return core.train.momentum(learningRate, config.momentum, true);
  return core.train.adam(learningRate, config.beta1, config.beta2, config.epsilon);
}

/** Kernels [height, width, channels, filters]; those of depthwise convolutions end in the multiplier. */
function isConvolution(kernel: core.Variable): boolean {
  return kernel.rank === 4 && !kernel.name.includes("depthwise");
}

/** Muon as its authors write it: filters are rows, and X Xt X is made from the left. */
function createReferenceMuon(
  kernels: readonly core.Variable[],
  { learningRate, momentum }: Extract<OptimizerConfig, { kind: "muon" }>,
): (gradients: core.NamedTensorMap) => void {
  const velocities = new Map(kernels.map(({ name, shape }) => [name, core.keep(core.zeros(shape))]));
  return (gradients) => {
    for (const kernel of kernels) {
      const gradient = gradients[kernel.name] ?? core.zeros(kernel.shape);
      const velocity = core.keep(core.add(core.mul(velocities.get(kernel.name) ?? 0, momentum), gradient));
      velocities.set(kernel.name, velocity);
      const rows = core.transpose(core.add(gradient, core.mul(velocity, momentum)), [3, 0, 1, 2]);
      const [filters = 0] = rows.shape;
      let x = core.reshape(rows, [filters, -1]);
      x = core.div(x, core.norm(x));
      for (let iteration = 0; iteration < 3; iteration++) {
        const gram = core.matMul(x, core.transpose(x));
        const cubic = core.matMul(gram, x);
        x = core.addN([core.mul(x, 3.4445), core.mul(cubic, -4.775), core.mul(core.matMul(gram, cubic), 2.0315)]);
      }
      const step = core.transpose(core.reshape(x, rows.shape), [1, 2, 3, 0]);
      const factor = core.div(Math.sqrt(filters), core.norm(kernel));
      kernel.assign(core.sub(core.mul(kernel, factor), core.mul(step, learningRate)));
    }
  };
}

function clipGradients(gradients: core.NamedTensorMap, limit: number): core.NamedTensorMap {
  if (limit === 0) return gradients;
  const squares = Object.values(gradients).map((gradient) => core.sum(core.square(gradient)));
  const norm = Math.sqrt(core.addN(squares).dataSync()[0] ?? 0);
  const entries = Object.entries(gradients).map(([name, gradient]) => {
    return [name, core.mul(gradient, limit / Math.max(limit, norm))] as const;
  });
  return Object.fromEntries(entries);
}

function pick(gradients: core.NamedTensorMap, isWanted: (name: string) => boolean): core.NamedTensorMap {
  return Object.fromEntries(Object.entries(gradients).filter(([name]) => isWanted(name)));
}

function normalizedImages(
  pixels: Uint8Array,
  { channels, height, width }: { channels: number; height: number; width: number },
  normalization: Normalization,
): core.Tensor {
  const { slopes, shifts } = normalizationFactors(normalization);
  const area = height * width;
  const values = Float32Array.from(pixels, (pixel, index) => {
    const channel = Math.floor(index / area) % channels;
    return pixel * (slopes[channel] ?? 1) + (shifts[channel] ?? 0);
  });
  const n = pixels.length / (channels * area);
  return core.tensor(permute(values, [n, channels, height, width], [0, 2, 3, 1]), [n, height, width, channels]);
}

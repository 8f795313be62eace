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
  const [forKernels, forBiases] = [
    createReferenceOptimizer(config, learningRate),
    createReferenceOptimizer(config, learningRate * biasLearningRateFactor),
  ];
  // Everything is read from the model itself: from our plan of it, whatever the plan got wrong would be wrong on both sides.
  const [, height = 0, width = 0, channels = 0] = (model.inputs[0]?.shape ?? []).map(Number);
  const classes = Number(model.outputs[0]?.shape.at(-1));
  const variables = model.trainableWeights.map((weight) => weight.read() as core.Variable);
  const kernels = variables.filter((_, index) => model.trainableWeights[index]?.originalName.endsWith("kernel"));
  const kernelNames = new Set(kernels.map(({ name }) => name));
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
      for (const kernel of kernels) kernel.assign(core.mul(kernel, 1 - learningRate * weightDecay));
      const clipped = clipGradients(grads, gradientClipNorm);
      forKernels.applyGradients(pick(clipped, (name) => kernelNames.has(name)));
      forBiases.applyGradients(pick(clipped, (name) => !kernelNames.has(name)));
      return value.dataSync()[0] ?? Number.NaN;
    });
}

function createReferenceOptimizer(config: OptimizerConfig, learningRate: number): core.Optimizer {
  if (config.kind === "sgd") return core.train.momentum(learningRate, config.momentum, config.nesterov);
  return core.train.adam(learningRate, config.beta1, config.beta2, config.epsilon);
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

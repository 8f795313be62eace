/**
 * Networks and a recipe for few epochs, after airbench (Jordan 2024, arXiv 2404.00498). What they consist of, and why:
 *
 * - A first convolution of 2x2 pixels that whitens patches and is not trained: what follows need not learn to do that, and
 *   nothing has to be differentiated down to the pixels.
 * - Three blocks of two 3x3 convolutions, the image pooled behind the first one: before normalisation and activation, which then
 *   have a quarter of the pixels to do. Few filters in the first block, whose large images cost most and gain least from Winograd's algorithm.
 * - Batch normalisation without a slope, since the next convolution has one; its running statistics follow fast, for there are few steps.
 * - GELU: unlike with ReLU, no unit falls silent for good, however high the rate.
 * - Convolutions that begin as the identity, so that a signal gets through all of them in the first step.
 * - Logits scaled down to a ninth, and labels smoothed by 0.2: it is not sure of itself too soon.
 * - Nesterov's momentum with decoupled weight decay and a triangular schedule: a high rate in the middle of few epochs, and next to none
 *   at their end. Biases, which only shift, learn at 64 times the rate.
 * - Lookahead: every 20 steps the weights are drawn towards their own average, which calms such rates.
 * - Alternating flip, which shows each image once each way in two epochs and leaves nothing to chance, and shifts of up to two pixels.
 * - The finished model looks at each image and at its mirror image.
 *
 * On CIFAR-10 as JPEG files of quality 75, trained on 50,000 and tested on 5,000 of them, with 2 cores of an AMD EPYC without AVX-512, Node 20.20:
 * `speedrun` reaches 85.7 % (85.6 to 85.9, three seeds) in 489 s (479 to 500), four epochs; five epochs of it reached 86.8 % in 531 s (one seed).
 * `speedrun-wide` reached 90.1 % and 89.6 % (two seeds) in 26 min with eight epochs, and 90.0 % (one seed) in 37 min with ten, while other
 * work ran on the machine; its default is eleven. By Muon instead of SGD eight epochs reached 90.5 % in 30 min (one seed), and
 * ten, with shifts of up to four pixels and cutout of eight, no more. docs/results has the logs.
 */
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { core, layers as tf } from "../tensorflow.ts";
import { whiteningKernel } from "../whitening.ts";
import type { NetworkDefinition, NetworkInput } from "./definition.ts";
import { createSeeds } from "./seeds.ts";

/** Pixels along a side of the patches that the first convolution whitens. */
const whitened = 2;

const convolution = { kernelSize: 3, padding: "same", useBias: false } as const;
const normalization = { momentum: 0.6, epsilon: 1e-5, scale: false } as const;
// Uniform in +-1 / sqrt(fan-in).
const uniform = (seed: number) =>
  tf.initializers.varianceScaling({ scale: 1 / 3, mode: "fanIn", distribution: "uniform", seed });

export const speedrun: NetworkDefinition = {
  name: "speedrun",
  description: "Six convolutions and a recipe that makes much of few epochs.",
  build: (input) => buildSpeedrun(input, { blocks: [32, 128, 256] }),
  initialize: whiten,
  defaults: recipe({ epochs: 4 }),
};

export const speedrunWide: NetworkDefinition = {
  name: "speedrun-wide",
  description:
    "The speedrun with twice the filters where they count, for a few epochs more: slower and more often right.",
  build: (input) => buildSpeedrun(input, { blocks: [64, 256, 256], name: "speedrun-wide" }),
  initialize: whiten,
  defaults: recipe({ epochs: 11 }),
};

function recipe({ epochs }: { epochs: number }): NetworkDefinition["defaults"] {
  return {
    epochs,
    batchSize: 128,
    optimizer: { kind: "sgd", learningRate: 0.1875, momentum: 0.85, weightDecay: 0.0089, biasLearningRateFactor: 64 },
    schedule: { kind: "one-cycle", warmUp: 0.23, initial: 0.2, final: 0.07 },
    labelSmoothing: 0.2,
    augmentation: { horizontalFlip: "alternating", translation: 2 },
    weightAveraging: { kind: "lookahead", every: 20, rate: 0.23 },
    mirroredInference: true,
  };
}

function whiten(model: LayersModel, images: core.Tensor4D): void {
  model.getLayer("whiten").setWeights([whiteningKernel(images, whitened)]);
}

/** The network for any images: `blocks` are the numbers of filters of its blocks, each of which halves the image. */
export function buildSpeedrun(
  { height, width, channels, classes, seed }: NetworkInput,
  { blocks, name = "speedrun" }: { blocks: readonly number[]; name?: string },
): LayersModel {
  const next = createSeeds(seed);
  const model = tf.sequential({ name });
  model.add(tf.layers.inputLayer({ name: "image", inputShape: [height, width, channels] }));
  // Not trained: `initialize` makes it decorrelate patches, and constant weights run in ONNX Runtime's fastest convolution.
  const filters = 2 * channels * whitened ** 2;
  const fixed = { kernelSize: whitened, padding: "same", useBias: false, trainable: false } as const;
  model.add(
    tf.layers.conv2d({ ...fixed, filters, activation: "gelu", name: "whiten", kernelInitializer: uniform(next()) }),
  );
  for (const [index, filters] of blocks.entries()) {
    const [a, b] = [`${index + 1}a`, `${index + 1}b`];
    model.add(tf.layers.conv2d({ ...convolution, name: `conv${a}`, filters, kernelInitializer: uniform(next()) }));
    model.add(tf.layers.maxPooling2d({ name: `pool${a}`, poolSize: 2 }));
    model.add(tf.layers.batchNormalization({ ...normalization, name: `norm${a}` }));
    model.add(tf.layers.activation({ name: `gelu${a}`, activation: "gelu" }));
    model.add(tf.layers.conv2d({ ...convolution, name: `conv${b}`, filters, kernelInitializer: uniform(next()) }));
    model.add(tf.layers.batchNormalization({ ...normalization, name: `norm${b}` }));
    model.add(tf.layers.activation({ name: `gelu${b}`, activation: "gelu" }));
  }
  model.add(tf.layers.globalMaxPooling2d({ name: "global" }));
  model.add(tf.layers.rescaling({ name: "scale", scale: 1 / 9 }));
  const head = { units: classes, activation: "softmax", useBias: false } as const;
  model.add(tf.layers.dense({ ...head, name: "head", kernelInitializer: uniform(next()) }));
  for (const layer of model.layers) if (layer.name.startsWith("conv")) passThrough(layer);
  return model;
}

/** Lets a convolution begin as the identity in as many of its filters as it has inputs. */
function passThrough(layer: LayersModel["layers"][number]): void {
  const [kernel] = layer.getWeights();
  if (kernel === undefined) return;
  const [rows = 0, columns = 0, inputs = 0, filters = 0] = kernel.shape;
  const values = Float32Array.from(kernel.dataSync());
  const centre = Math.floor(rows / 2) * columns + Math.floor(columns / 2);
  for (let filter = 0; filter < Math.min(inputs, filters); filter++) {
    for (let index = filter; index < values.length; index += filters) values[index] = 0;
    values[(centre * inputs + filter) * filters + filter] = 1;
  }
  layer.setWeights([core.tensor(values, kernel.shape)]);
}

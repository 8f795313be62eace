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
 * - `speedrun` learns by Nesterov's momentum with decoupled weight decay and a triangular schedule: a high rate in the middle of few epochs, and
 *   next to none at their end. Biases, which only shift, learn at 64 times the rate. Lookahead: every 20 steps the weights are drawn
 *   towards their own average, which calms such rates.
 * - The larger ones learn by Muon (Jordan 2024, kellerjordan.github.io/posts/muon), at a rate that only falls: after one epoch they classify two
 *   thirds of the images, by SGD half.
 * - Alternating flip, which shows each image once each way in two epochs and leaves nothing to chance, and shifts of up to two pixels; in
 *   forty epochs, which would learn the images by heart, shifts of up to four, and a square of twelve blanked.
 * - The finished model looks at each image and at its mirror image.
 *
 * On CIFAR-10 as JPEG files of quality 75, trained on 50,000 and tested on 5,000 of them, with 2 cores of an AMD EPYC without AVX-512, Node 20.20,
 * ONNX Runtime 1.30:
 * `speedrun` reaches 85.7 % (85.6 to 85.9, three seeds) in 489 s (479 to 500), four epochs.
 * `speedrun-wide` reaches 90.5 % (90.4 to 90.7, three seeds) in 15 to 30 min, as fast as the machine was that day; by SGD it had 90.1 % and 89.6 %
 * in 26 min. `speedrun-deep` reaches 92.1 % (91.9 to 92.3, three seeds) at 352 images a second where nothing else ran, which are 95 min; with
 * 20 epochs and a square of eight 91.2 %. docs/results has the logs.
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

const shared = {
  labelSmoothing: 0.2,
  augmentation: { horizontalFlip: "alternating", translation: 2 },
  mirroredInference: true,
} as const;

const sgdRecipe: NetworkDefinition["defaults"] = {
  ...shared,
  epochs: 4,
  batchSize: 128,
  optimizer: { kind: "sgd", learningRate: 0.1875, momentum: 0.85, weightDecay: 0.0089, biasLearningRateFactor: 64 },
  schedule: { kind: "one-cycle", warmUp: 0.23, initial: 0.2, final: 0.07 },
  weightAveraging: { kind: "lookahead", every: 20, rate: 0.23 },
};

const muonRecipe: Omit<NetworkDefinition["defaults"], "epochs"> = {
  ...shared,
  batchSize: 250,
  optimizer: {
    kind: "muon",
    learningRate: 0.085,
    momentum: 0.6,
    weightDecay: 0.0089,
    otherLearningRateFactor: 12,
    biasLearningRateFactor: 700,
  },
  schedule: { kind: "one-cycle", warmUp: 0, final: 0 },
};

export const speedrun: NetworkDefinition = {
  name: "speedrun",
  description: "Six convolutions and a recipe that makes much of few epochs.",
  build: (input) => buildSpeedrun(input, { blocks: [32, 128, 256] }),
  initialize: whiten,
  defaults: sgdRecipe,
};

export const speedrunWide: NetworkDefinition = {
  name: "speedrun-wide",
  description:
    "The speedrun with twice the filters where they count, for a few epochs more: slower and more often right.",
  build: (input) => buildSpeedrun(input, { blocks: [64, 256, 256], name: "speedrun-wide" }),
  initialize: whiten,
  defaults: { ...muonRecipe, epochs: 8 },
};

export const speedrunDeep: NetworkDefinition = {
  name: "speedrun-deep",
  description: "The wide speedrun with a residual convolution in each block, for as many epochs as that needs.",
  build: (input) => buildSpeedrun(input, { blocks: [64, 256, 256], residual: true, name: "speedrun-deep" }),
  initialize: whiten,
  defaults: {
    ...muonRecipe,
    epochs: 40,
    augmentation: { horizontalFlip: "alternating", translation: 4, cutout: 12 },
  },
};

function whiten(model: LayersModel, images: core.Tensor4D): void {
  model.getLayer("whiten").setWeights([whiteningKernel(images, whitened)]);
}

type Layer = LayersModel["layers"][number];
type Symbolic = ReturnType<typeof tf.input>;

/** What distinguishes the networks of this file. */
interface Shape {
  readonly name?: string;
  /** The numbers of filters of the blocks, each of which halves the image. */
  readonly blocks: readonly number[];
  /** Whether each block has a third convolution, on a branch beside which the signal passes. Default: false. */
  readonly residual?: boolean;
}

/** The network for any images. */
export function buildSpeedrun(
  { height, width, channels, classes, seed }: NetworkInput,
  { blocks, residual = false, name = "speedrun" }: Shape,
): LayersModel {
  const next = createSeeds(seed);
  const layer = (made: Layer, x: Symbolic | Symbolic[]) => made.apply(x) as Symbolic;
  const convolve = (x: Symbolic, place: string, filters: number) =>
    layer(tf.layers.conv2d({ ...convolution, name: `conv${place}`, filters, kernelInitializer: uniform(next()) }), x);
  const normalize = (x: Symbolic, place: string) =>
    layer(tf.layers.batchNormalization({ ...normalization, name: `norm${place}` }), x);
  const activate = (x: Symbolic, place: string) =>
    layer(tf.layers.activation({ name: `gelu${place}`, activation: "gelu" }), x);

  const image = tf.input({ name: "image", shape: [height, width, channels] });
  // Not trained: `initialize` makes it decorrelate patches, and constant weights run in ONNX Runtime's fastest convolution.
  const filters = 2 * channels * whitened ** 2;
  const fixed = { kernelSize: whitened, padding: "same", useBias: false, trainable: false } as const;
  let x = layer(
    tf.layers.conv2d({ ...fixed, filters, activation: "gelu", name: "whiten", kernelInitializer: uniform(next()) }),
    image,
  );
  for (const [index, filters] of blocks.entries()) {
    const block = index + 1;
    x = layer(tf.layers.maxPooling2d({ name: `pool${block}a`, poolSize: 2 }), convolve(x, `${block}a`, filters));
    x = activate(normalize(x, `${block}a`), `${block}a`);
    x = activate(normalize(convolve(x, `${block}b`, filters), `${block}b`), `${block}b`);
    if (!residual) continue;
    const branch = normalize(convolve(x, `${block}c`, filters), `${block}c`);
    x = activate(layer(tf.layers.add({ name: `add${block}` }), [x, branch]), `${block}c`);
  }
  x = layer(tf.layers.globalMaxPooling2d({ name: "global" }), x);
  x = layer(tf.layers.rescaling({ name: "scale", scale: 1 / 9 }), x);
  const head = { units: classes, activation: "softmax", useBias: false } as const;
  x = layer(tf.layers.dense({ ...head, name: "head", kernelInitializer: uniform(next()) }), x);
  const model = tf.model({ name, inputs: image, outputs: x });
  for (const layer of model.layers) if (layer.name.startsWith("conv")) passThrough(layer);
  return model;
}

/** Lets a convolution begin as the identity in as many of its filters as it has inputs. */
function passThrough(layer: Layer): void {
  const [kernel] = layer.getWeights();
  if (kernel === undefined) return;
  const [rows = 0, columns = 0, inputs = 0, filters = 0] = kernel.shape;
  const values = Float32Array.from(kernel.dataSync());
  const centre = Math.floor(rows / 2) * columns + Math.floor(columns / 2);
  for (let filter = 0; filter < Math.min(inputs, filters); filter++) {
    for (let index = filter; index < values.length; index += filters) values[index] = 0;
    values[(centre * inputs + filter) * filters + filter] = 1;
  }
  core.tidy(() => layer.setWeights([core.tensor(values, kernel.shape)]));
}

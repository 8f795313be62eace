/**
 * A network for demonstrations, after the narrow end of airbench (github.com/KellerJordan/cifar10-airbench): five 3x3 convolutions
 * with batch normalisation, global max-pooling, label smoothing, Nesterov's momentum and a triangular schedule. 9 MFLOP forward
 * for a 32x32 image: the README says how long twelve epochs of 4,000 pictograms take.
 */
import { layers as tf } from "../tensorflow.ts";
import type { NetworkDefinition } from "./definition.ts";
import { createSeeds } from "./seeds.ts";

const stages = [
  { filters: 16, pool: true },
  { filters: 32, pool: true },
  { filters: 48, pool: false },
  { filters: 48, pool: true },
  { filters: 64, pool: false },
];

const convolution = { kernelSize: 3, padding: "same", useBias: false } as const;
const normalization = { momentum: 0.8, epsilon: 1e-5 };

export const small: NetworkDefinition = {
  name: "small",
  description: "A narrow convolutional network that trains in seconds on a few thousand images.",
  build({ height, width, channels, classes, seed }) {
    const next = createSeeds(seed);
    const model = tf.sequential({ name: "small" });
    model.add(tf.layers.inputLayer({ name: "image", inputShape: [height, width, channels] }));
    for (const [index, { filters, pool }] of stages.entries()) {
      const name = index + 1;
      const kernelInitializer = tf.initializers.heNormal({ seed: next() });
      model.add(tf.layers.conv2d({ ...convolution, name: `conv${name}`, filters, kernelInitializer }));
      if (pool) model.add(tf.layers.maxPooling2d({ name: `pool${name}`, poolSize: 2 }));
      model.add(tf.layers.batchNormalization({ ...normalization, name: `norm${name}` }));
      model.add(tf.layers.reLU({ name: `relu${name}` }));
    }
    model.add(tf.layers.globalMaxPooling2d({ name: "global" }));
    const kernelInitializer = tf.initializers.glorotNormal({ seed: next() });
    model.add(tf.layers.dense({ name: "head", units: classes, activation: "softmax", kernelInitializer }));
    return model;
  },
  defaults: {
    epochs: 12,
    batchSize: 64,
    optimizer: { kind: "sgd", learningRate: 0.1, weightDecay: 5e-3 },
    schedule: { kind: "one-cycle" },
    labelSmoothing: 0.1,
    augmentation: { horizontalFlip: "random", translation: 2 },
  },
};

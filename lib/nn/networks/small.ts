/**
 * A network for demonstrations: a narrow residual-free cousin of airbench's (github.com/KellerJordan/cifar10-airbench), four 3x3
 * convolutions with batch normalisation, global max-pooling. It trains on 4,000 32x32 images in well under half a minute.
 */
import { layers as tf } from "../tensorflow.ts";
import type { NetworkDefinition } from "./definition.ts";
import { createSeeds } from "./seeds.ts";

const stages = [
  { filters: 16, pool: true },
  { filters: 48, pool: true },
  { filters: 96, pool: false },
  { filters: 96, pool: true },
  { filters: 128, pool: false },
];

export const small: NetworkDefinition = {
  name: "small",
  description: "A narrow convolutional network that trains in seconds on a few thousand images.",
  build({ height, width, channels, classes, seed }) {
    const next = createSeeds(seed);
    const model = tf.sequential({ name: "small" });
    model.add(tf.layers.inputLayer({ inputShape: [height, width, channels] }));
    for (const { filters, pool } of stages) {
      const kernelInitializer = tf.initializers.heNormal({ seed: next() });
      model.add(tf.layers.conv2d({ filters, kernelSize: 3, padding: "same", useBias: false, kernelInitializer }));
      if (pool) model.add(tf.layers.maxPooling2d({ poolSize: 2 }));
      model.add(tf.layers.batchNormalization({ momentum: 0.8, epsilon: 1e-5 }));
      model.add(tf.layers.reLU());
    }
    model.add(tf.layers.globalMaxPooling2d({}));
    const kernelInitializer = tf.initializers.glorotNormal({ seed: next() });
    model.add(tf.layers.dense({ units: classes, activation: "softmax", kernelInitializer }));
    return model;
  },
  defaults: {
    epochs: 12,
    batchSize: 64,
    seed: 1,
    optimizer: { kind: "sgd", learningRate: 0.1, momentum: 0.9, nesterov: true, weightDecay: 5e-3 },
    schedule: { kind: "one-cycle", warmUp: 0.25, initial: 0.2, final: 0.01 },
    labelSmoothing: 0.1,
    augmentation: { horizontalFlip: true, translation: 2 },
    intraOpThreads: 0,
  },
};

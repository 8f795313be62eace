/**
 * The network of the paper behind this project: three pairs of 3x3 convolutions (64, 128, 256 channels), each followed by ReLU
 * and batch normalisation, with max-pooling and dropout after each pair, and a dense layer of 256. About 306 MFLOP forward
 * for a 32x32 image.
 */
import { layers as tf } from "../tensorflow.ts";
import type { NetworkDefinition } from "./definition.ts";
import { createSeeds } from "./seeds.ts";

const blocks = [
  { filters: 64, dropout: 0.2 },
  { filters: 128, dropout: 0.3 },
  { filters: 256, dropout: 0.4 },
];

export const paper: NetworkDefinition = {
  name: "paper",
  description: "The paper's VGG-like network: accurate, and some twenty times the work of small.",
  build({ height, width, channels, classes, seed }) {
    const next = createSeeds(seed);
    const model = tf.sequential({ name: "paper" });
    model.add(tf.layers.inputLayer({ inputShape: [height, width, channels] }));
    for (const { filters, dropout } of blocks) {
      for (let repeat = 0; repeat < 2; repeat++) {
        model.add(
          tf.layers.conv2d({
            filters,
            kernelSize: 3,
            padding: "same",
            activation: "relu",
            kernelRegularizer: tf.regularizers.l2({ l2: 1e-4 }),
            kernelInitializer: tf.initializers.heNormal({ seed: next() }),
          }),
        );
        model.add(tf.layers.batchNormalization({ momentum: 0.9 }));
      }
      model.add(tf.layers.maxPooling2d({ poolSize: 2 }));
      model.add(tf.layers.dropout({ rate: dropout }));
    }
    model.add(tf.layers.flatten());
    const kernelInitializer = tf.initializers.heNormal({ seed: next() });
    model.add(tf.layers.dense({ units: 256, activation: "relu", kernelInitializer }));
    model.add(tf.layers.batchNormalization({ momentum: 0.9 }));
    model.add(tf.layers.dropout({ rate: 0.5 }));
    const last = tf.initializers.glorotNormal({ seed: next() });
    model.add(tf.layers.dense({ units: classes, activation: "softmax", kernelInitializer: last }));
    return model;
  },
  defaults: {
    epochs: 40,
    batchSize: 64,
    seed: 1,
    optimizer: { kind: "adam", learningRate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-7, weightDecay: 0 },
    schedule: { kind: "cosine", warmUp: 0.05, final: 0 },
    labelSmoothing: 0,
    augmentation: { horizontalFlip: true, translation: 3 },
    intraOpThreads: 0,
  },
};

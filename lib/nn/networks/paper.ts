/**
 * The network of the paper behind this project: three pairs of 3x3 convolutions (64, 128, 256 channels), each followed by ReLU
 * and batch normalisation, with max-pooling and dropout after each pair, and a dense layer of 256. About 308 MFLOP forward
 * for a 32x32 image.
 */
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { layers as tf } from "../tensorflow.ts";
import type { NetworkDefinition, NetworkInput } from "./definition.ts";
import { createSeeds } from "./seeds.ts";

const blocks = [
  { filters: 64, dropout: 0.2 },
  { filters: 128, dropout: 0.3 },
  { filters: 256, dropout: 0.4 },
];

const convolution = {
  kernelSize: 3,
  padding: "same",
  activation: "relu",
  kernelRegularizer: tf.regularizers.l2({ l2: 1e-4 }),
} as const;
const normalization = { momentum: 0.9 };
const heNormal = (seed: number) => tf.initializers.heNormal({ seed });

export const paper: NetworkDefinition = {
  name: "paper",
  description: "The paper's VGG-like network: accurate, and some thirty-five times the work of small.",
  build: (input) => buildPaperNetwork(input, { blocks, units: 256 }),
  defaults: {
    epochs: 40,
    batchSize: 64,
    optimizer: { kind: "adam", learningRate: 1e-3 },
    schedule: { kind: "cosine", warmUp: 0.05 },
    augmentation: { horizontalFlip: "random", translation: 3 },
  },
};

/** The same network at any width: `blocks` are its pairs of convolutions, `units` the size of its dense layer. */
export function buildPaperNetwork(
  { height, width, channels, classes, seed }: NetworkInput,
  { blocks, units }: { blocks: readonly { filters: number; dropout: number }[]; units: number },
): LayersModel {
  const next = createSeeds(seed);
  const model = tf.sequential({ name: "paper" });
  model.add(tf.layers.inputLayer({ name: "image", inputShape: [height, width, channels] }));
  for (const [block, { filters, dropout }] of blocks.entries()) {
    for (const part of ["a", "b"]) {
      const name = `${block + 1}${part}`;
      model.add(
        tf.layers.conv2d({ ...convolution, name: `conv${name}`, filters, kernelInitializer: heNormal(next()) }),
      );
      model.add(tf.layers.batchNormalization({ ...normalization, name: `norm${name}` }));
    }
    model.add(tf.layers.maxPooling2d({ name: `pool${block + 1}`, poolSize: 2 }));
    model.add(tf.layers.dropout({ name: `dropout${block + 1}`, rate: dropout }));
  }
  model.add(tf.layers.flatten({ name: "flatten" }));
  model.add(tf.layers.dense({ name: "dense", units, activation: "relu", kernelInitializer: heNormal(next()) }));
  model.add(tf.layers.batchNormalization({ ...normalization, name: "norm" }));
  model.add(tf.layers.dropout({ name: "dropout", rate: 0.5 }));
  const kernelInitializer = tf.initializers.glorotNormal({ seed: next() });
  model.add(tf.layers.dense({ name: "head", units: classes, activation: "softmax", kernelInitializer }));
  return model;
}

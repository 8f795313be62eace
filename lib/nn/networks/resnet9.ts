/**
 * A residual network after David Page's for DAWNBench (github.com/davidcpage/cifar10-fast), at a quarter of its width, so that
 * two CPU cores do for it: a convolution, three stages that each double the channels and halve the image, residual branches
 * of two convolutions behind the first and the third, global max-pooling, and logits scaled down to an eighth, which keeps
 * the softmax soft at the start. About 48 MFLOP forward for a 32x32 image.
 */
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { layers as tf } from "../tensorflow.ts";
import type { NetworkDefinition, NetworkInput } from "./definition.ts";
import { createSeeds } from "./seeds.ts";

const stages = [
  { name: "stage1", residual: true },
  { name: "stage2", residual: false },
  { name: "stage3", residual: true },
];

export const resnet9: NetworkDefinition = {
  name: "resnet9",
  description: "A residual network of nine layers, some five times the work of small and a sixth of paper.",
  build: (input) => buildResnet9(input, { width: 16 }),
  defaults: {
    epochs: 24,
    batchSize: 128,
    optimizer: { kind: "sgd", learningRate: 0.1, weightDecay: 5e-4 },
    schedule: { kind: "one-cycle", warmUp: 0.2, initial: 0, final: 0 },
    augmentation: { horizontalFlip: "random", translation: 4 },
  },
};

type Symbolic = ReturnType<typeof tf.input>;

/** The same network at any width: `width` is the number of channels of the first convolution, and the last has eight times as many. */
export function buildResnet9(
  { height, width: columns, channels, classes, seed }: NetworkInput,
  { width }: { width: number },
): LayersModel {
  const next = createSeeds(seed);
  const convolution = (x: Symbolic, name: string, filters: number): Symbolic => {
    const kernelInitializer = tf.initializers.heNormal({ seed: next() });
    const options = { filters, kernelSize: 3, padding: "same", useBias: false, kernelInitializer } as const;
    return tf.layers.conv2d({ ...options, name: `${name}-conv` }).apply(x) as Symbolic;
  };
  const activate = (x: Symbolic, name: string): Symbolic => {
    const normalized = tf.layers.batchNormalization({ momentum: 0.9, epsilon: 1e-5, name: `${name}-norm` }).apply(x);
    return tf.layers.reLU({ name: `${name}-relu` }).apply(normalized) as Symbolic;
  };
  const block = (x: Symbolic, name: string, filters: number): Symbolic => activate(convolution(x, name, filters), name);

  const image = tf.input({ name: "image", shape: [height, columns, channels] });
  let x = block(image, "stem", width);
  for (const [index, { name, residual }] of stages.entries()) {
    const filters = width * 2 ** (index + 1);
    const pool = tf.layers.maxPooling2d({ poolSize: 2, name: `${name}-pool` });
    x = pool.apply(block(x, name, filters)) as Symbolic;
    if (!residual) continue;
    const branch = block(block(x, `${name}-branch1`, filters), `${name}-branch2`, filters);
    x = tf.layers.add({ name: `${name}-add` }).apply([x, branch]) as Symbolic;
  }
  const vector = tf.layers.globalMaxPooling2d({ name: "global" }).apply(x);
  const kernelInitializer = tf.initializers.glorotNormal({ seed: next() });
  const head = tf.layers.dense({ units: classes, useBias: false, kernelInitializer, name: "head" }).apply(vector);
  const logits = tf.layers.rescaling({ scale: 1 / 8, offset: 0, name: "logits" }).apply(head);
  const probabilities = tf.layers
    .activation({ activation: "softmax", name: "probabilities" })
    .apply(logits) as Symbolic;
  return tf.model({ name: "resnet9", inputs: image, outputs: probabilities });
}

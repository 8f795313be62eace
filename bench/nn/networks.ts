/** Networks that are only measured, never offered. */
import type { LayersModel } from "@tensorflow/tfjs-layers";
import type { NetworkInput } from "../../lib/nn/networks/definition.ts";
import { createSeeds } from "../../lib/nn/networks/seeds.ts";
import { layers as tf } from "../../lib/nn/tensorflow.ts";

const depth = 6;
const convolution = { filters: 64, kernelSize: 3, padding: "same", useBias: false } as const;

/**
 * Nothing but what a training step should be good at: six 3x3 convolutions of 64 channels at full size, each with batch
 * normalisation and ReLU, then global average pooling and a dense layer. About 380 MFLOP forward for a 32x32 image.
 */
export function buildConvolutionStack({ height, width, channels, classes, seed }: NetworkInput): LayersModel {
  const next = createSeeds(seed);
  const model = tf.sequential({ name: "stack" });
  model.add(tf.layers.inputLayer({ name: "image", inputShape: [height, width, channels] }));
  for (let index = 1; index <= depth; index++) {
    const kernelInitializer = tf.initializers.heNormal({ seed: next() });
    model.add(tf.layers.conv2d({ ...convolution, name: `conv${index}`, kernelInitializer }));
    model.add(tf.layers.batchNormalization({ name: `norm${index}` }));
    model.add(tf.layers.reLU({ name: `relu${index}` }));
  }
  model.add(tf.layers.globalAveragePooling2d({ name: "global" }));
  const kernelInitializer = tf.initializers.glorotNormal({ seed: next() });
  model.add(tf.layers.dense({ name: "head", units: classes, activation: "softmax", kernelInitializer }));
  return model;
}

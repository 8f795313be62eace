/** A network of the convolutions that none of the product's networks has. */
import type { LayersModel } from "@tensorflow/tfjs-layers";
import type { NetworkInput } from "../../../lib/nn/networks/definition.ts";
import { layers as tf } from "../../../lib/nn/tensorflow.ts";

/** With L2 regularisers and two kernels a channel: TensorFlow.js writes both in a way that it cannot read back. */
export function separableNetwork({ height, width, channels, classes, seed }: NetworkInput): LayersModel {
  const initializer = tf.initializers.heNormal({ seed });
  const initializers = { depthwiseInitializer: initializer, pointwiseInitializer: initializer } as const;
  const pointwiseRegularizer = tf.regularizers.l2({ l2: 0.02 });
  const shared = { kernelSize: 3, depthMultiplier: 2, depthwiseRegularizer: tf.regularizers.l2({ l2: 0.05 }) } as const;
  const separable = { ...shared, ...initializers, name: "separable", filters: 5, pointwiseRegularizer };
  const model = tf.sequential();
  model.add(tf.layers.inputLayer({ inputShape: [height, width, channels] }));
  // The declared type demands options that have defaults.
  model.add(tf.layers.separableConv2d(separable as Parameters<typeof tf.layers.separableConv2d>[0]));
  model.add(tf.layers.depthwiseConv2d({ ...shared, name: "depthwise", depthwiseInitializer: initializer }));
  model.add(tf.layers.globalAveragePooling2d({ name: "global" }));
  const kernelInitializer = tf.initializers.glorotNormal({ seed });
  model.add(tf.layers.dense({ name: "head", units: classes, activation: "softmax", kernelInitializer }));
  return model;
}

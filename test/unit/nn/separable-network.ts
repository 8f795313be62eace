/** A network of the convolutions that none of the product's networks has. */
import type { LayersModel } from "@tensorflow/tfjs-layers";
import type { NetworkInput } from "../../../lib/nn/networks/definition.ts";
import { layers as tf } from "../../../lib/nn/tensorflow.ts";

/**
 * With L2 regularisers of every weight and two kernels a channel: TensorFlow.js writes both in a way that it cannot read back. Biases begin
 * away from zero, where neither a regulariser nor a decay would show.
 */
export function separableNetwork({ height, width, channels, classes, seed }: NetworkInput): LayersModel {
  const initializer = tf.initializers.heNormal({ seed });
  const initializers = { depthwiseInitializer: initializer, pointwiseInitializer: initializer } as const;
  const pointwiseRegularizer = tf.regularizers.l2({ l2: 0.02 });
  const away = tf.initializers.randomNormal({ mean: 0.5, stddev: 0.5, seed });
  const bias = (l2: number) => ({ biasInitializer: away, biasRegularizer: tf.regularizers.l2({ l2 }) });
  const shared = { kernelSize: 3, depthMultiplier: 2, depthwiseRegularizer: tf.regularizers.l2({ l2: 0.05 }) } as const;
  const separable = { ...shared, ...initializers, ...bias(2), name: "separable", filters: 5, pointwiseRegularizer };
  const model = tf.sequential();
  model.add(tf.layers.inputLayer({ inputShape: [height, width, channels] }));
  // The declared type demands options that have defaults.
  model.add(tf.layers.separableConv2d(separable as Parameters<typeof tf.layers.separableConv2d>[0]));
  model.add(
    tf.layers.batchNormalization({
      ...{ name: "norm", gammaRegularizer: tf.regularizers.l2({ l2: 0.5 }) },
      ...{ betaInitializer: away, betaRegularizer: tf.regularizers.l2({ l2: 1 }) },
    }),
  );
  const depthwise = { ...shared, ...bias(1.5), depthwiseInitializer: initializer };
  model.add(tf.layers.depthwiseConv2d({ ...depthwise, name: "depthwise" }));
  model.add(tf.layers.globalAveragePooling2d({ name: "global" }));
  const kernelInitializer = tf.initializers.glorotNormal({ seed });
  const head = { units: classes, activation: "softmax", kernelInitializer } as const;
  model.add(tf.layers.dense({ ...head, ...bias(3), name: "head" }));
  return model;
}

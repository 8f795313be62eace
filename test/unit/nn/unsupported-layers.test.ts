/** What the compiler refuses: each time an error that names the layer. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { supportedLayers } from "../../../lib/nn/layers.ts";
import { planFromLayersModel } from "../../../lib/nn/plan.ts";
import { layers as tf } from "../../../lib/nn/tensorflow.ts";
import { sequential } from "./sequential.ts";

const unsupported: Readonly<Record<string, { build: () => LayersModel; message: RegExp }>> = {
  "a layer that is not in the table": {
    build: () => sequential(tf.layers.upSampling2d({ name: "bigger" }), tf.layers.flatten()),
    message: /layer bigger: UpSampling2D is not supported; these are: Activation, Add,/,
  },
  "an activation that is not in the table": {
    build: () =>
      sequential(
        tf.layers.conv2d({ filters: 2, kernelSize: 1, activation: "selu", name: "conv" }),
        tf.layers.flatten(),
      ),
    message: /layer conv\/activation .*option activation/,
  },
  "an L1 regulariser": {
    build: () =>
      sequential(
        tf.layers.flatten(),
        tf.layers.dense({ units: 2, name: "lasso", kernelRegularizer: tf.regularizers.l1() }),
      ),
    message: /layer lasso .*option kernelRegularizer/,
  },
  "channels first": {
    build: () =>
      sequential(
        tf.layers.maxPooling2d({ poolSize: 1, dataFormat: "channelsFirst", name: "pool" }),
        tf.layers.flatten(),
      ),
    message: /layer pool .*option dataFormat/,
  },
  "a flattening of channels first": {
    build: () => sequential(tf.layers.flatten({ dataFormat: "channelsFirst", name: "flat" })),
    message: /layer flat .*option dataFormat/,
  },
  "a global average of channels first": {
    build: () => sequential(tf.layers.globalAveragePooling2d({ dataFormat: "channelsFirst", name: "average" })),
    message: /layer average .*option dataFormat/,
  },
  "a global maximum of channels first": {
    build: () => sequential(tf.layers.globalMaxPooling2d({ dataFormat: "channelsFirst", name: "maximum" })),
    message: /layer maximum .*option dataFormat/,
  },
  "a sum of unequal shapes": {
    build() {
      const image = tf.input({ shape: [4, 4, 2] });
      const row = tf.layers.averagePooling2d({ poolSize: [4, 1], strides: [4, 1] }).apply(image) as typeof image;
      const sum = tf.layers.add({ name: "sum" }).apply([image, row]) as typeof image;
      const flat = tf.layers.flatten().apply(sum) as typeof image;
      const head = tf.layers.dense({ units: 2, activation: "softmax" }).apply(flat) as typeof image;
      return tf.model({ inputs: image, outputs: head });
    },
    message: /layer sum \(Add\) adds values of one shape only, not of \[2, 4, 4\] and \[2, 1, 4\]/,
  },
  "a dense layer on images": {
    build: () => sequential(tf.layers.dense({ units: 2, name: "pointwise" }), tf.layers.flatten()),
    message: /layer pointwise .*vectors/,
  },
  "an axis of rows to concatenate along": {
    build() {
      const image = tf.input({ shape: [4, 4, 2] });
      const joined = tf.layers.concatenate({ axis: 1, name: "join" }).apply([image, image]) as typeof image;
      const flat = tf.layers.flatten().apply(joined) as typeof image;
      const head = tf.layers.dense({ units: 2, activation: "softmax" }).apply(flat) as typeof image;
      return tf.model({ inputs: image, outputs: head });
    },
    message: /layer join .*axis -1.*not axis 1/,
  },
  "a softmax over rows": {
    build: () => sequential(tf.layers.softmax({ name: "soft" }), tf.layers.flatten()),
    message: /layer soft .*last axis/,
  },
  "a shape with a length left open": {
    build: () =>
      sequential(tf.layers.reshape({ targetShape: [-1, 4, 3], name: "open" }), tf.layers.globalAveragePooling2d({})),
    message: /layer open .*without -1/,
  },
  "a shape of more axes than an image": {
    build: () => sequential(tf.layers.reshape({ targetShape: [2, 8, 8, 3], name: "deep" }), tf.layers.flatten()),
    message: /layer deep .*three axes/,
  },
  "a dilated depthwise convolution": {
    build: () =>
      sequential(
        tf.layers.depthwiseConv2d({ kernelSize: 3, dilationRate: 2, padding: "same", name: "atrous" }),
        tf.layers.globalMaxPooling2d({}),
      ),
    message: /layer atrous .*option dilationRate/,
  },
  "batch normalisation of what is no image and no vector": {
    build: () =>
      sequential(
        tf.layers.reshape({ targetShape: [16, 24] }),
        tf.layers.batchNormalization({ name: "rows" }),
        tf.layers.flatten(),
      ),
    message: /layer rows .*images and vectors/,
  },
  "an end without softmax": {
    build: () =>
      tf.sequential({ layers: [tf.layers.flatten({ inputShape: [4, 4, 1] }), tf.layers.dense({ units: 2 })] }),
    message: /must end in a softmax/,
  },
};

for (const [name, { build, message }] of Object.entries(unsupported)) {
  test(`${name} is refused by name`, () => {
    assert.throws(() => planFromLayersModel(build()), { code: "LAYER_UNSUPPORTED", message });
  });
}

test("the list of supported layers is in order", () => {
  assert.deepEqual([...supportedLayers], [...supportedLayers].sort());
  assert.ok(supportedLayers.includes("Softmax"));
});

test("an unsupported activation's message lists those that work", () => {
  const model = sequential(tf.layers.flatten(), tf.layers.dense({ units: 2, activation: "selu", name: "head2" }));
  assert.throws(() => planFromLayersModel(model), /head2.*"elu"\|"gelu"\|"linear"/);
});

test("a window that does not fit into its images is blamed on its layer, with what to do", () => {
  const model = sequential(
    tf.layers.maxPooling2d({ poolSize: [8, 4] }),
    tf.layers.depthwiseConv2d({ kernelSize: 3, name: "wide" }),
    tf.layers.flatten(),
  );
  assert.throws(() => planFromLayersModel(model), {
    code: "DATASET_INVALID",
    message:
      /^images of 16x8 are too small for network .*layer wide \(DepthwiseConv2D\).*\[3, 0, 0\]; prepare .*larger images/,
  });
});

test("images of any size are refused: the compiler needs to know it", () => {
  const layers = [tf.layers.globalMaxPooling2d({ inputShape: [null, null, 3] }), tf.layers.softmax()];
  assert.throws(() => planFromLayersModel(tf.sequential({ layers })), {
    code: "LAYER_UNSUPPORTED",
    message: /must be images of fixed size/,
  });
});

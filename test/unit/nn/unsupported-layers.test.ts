/** What the compiler refuses: each time an error that names the layer. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { buildInferenceModel } from "../../../lib/nn/inference-graph.ts";
import { supportedLayers } from "../../../lib/nn/layers.ts";
import { planFromLayersModel } from "../../../lib/nn/plan.ts";
import { layers as tf } from "../../../lib/nn/tensorflow.ts";
import { sequential } from "./sequential.ts";

/** The declared types of TensorFlow.js demand options that have defaults, and lack some. */
type DepthwiseOptions = Parameters<typeof tf.layers.depthwiseConv2d>[0];
type SeparableOptions = Parameters<typeof tf.layers.separableConv2d>[0];
const separable = { filters: 2, kernelSize: 3 };

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
  "an L1 regulariser of biases": {
    build: () =>
      sequential(
        tf.layers.conv2d({ filters: 2, kernelSize: 1, name: "sparse", biasRegularizer: tf.regularizers.l1() }),
        tf.layers.flatten(),
      ),
    message: /layer sparse .*option biasRegularizer/,
  },
  "a constraint on a kernel": {
    build: () =>
      sequential(tf.layers.flatten(), tf.layers.dense({ units: 2, name: "bound", kernelConstraint: "maxNorm" })),
    message: /^layer bound \(Dense\) has a constraint on its kernel; the compiler cannot take it/,
  },
  "a constraint on a bias": {
    build: () =>
      sequential(
        tf.layers.conv2d({ filters: 2, kernelSize: 1, name: "bound", biasConstraint: "nonNeg" }),
        tf.layers.flatten(),
      ),
    message: /^layer bound \(Conv2D\) has a constraint on its bias/,
  },
  "a constraint on a depthwise kernel, which its configuration does not tell of": {
    build: () =>
      sequential(
        tf.layers.depthwiseConv2d({ kernelSize: 3, name: "bound", depthwiseConstraint: "maxNorm" } as DepthwiseOptions),
        tf.layers.flatten(),
      ),
    message: /^layer bound \(DepthwiseConv2D\) has a constraint on its depthwise_kernel/,
  },
  "a constraint on a pointwise kernel": {
    build: () =>
      sequential(
        tf.layers.separableConv2d({ ...separable, name: "bound", pointwiseConstraint: "unitNorm" } as SeparableOptions),
        tf.layers.flatten(),
      ),
    message: /^layer bound \(SeparableConv2D\) has a constraint on its pointwise_kernel/,
  },
  "a constraint on a batch normalisation": {
    build: () =>
      sequential(tf.layers.batchNormalization({ name: "bound", gammaConstraint: "nonNeg" }), tf.layers.flatten()),
    message: /^layer bound \(BatchNormalization\) has a constraint on its gamma/,
  },
  "a layer that is used twice": {
    build() {
      const image = tf.input({ shape: [4, 4, 3] });
      const twice = tf.layers.conv2d({ filters: 3, kernelSize: 3, padding: "same", name: "twice" });
      const joined = twice.apply(twice.apply(image)) as typeof image;
      const flat = tf.layers.flatten().apply(joined) as typeof image;
      const head = tf.layers.dense({ units: 2, activation: "softmax" }).apply(flat) as typeof image;
      return tf.model({ inputs: image, outputs: head });
    },
    message: /layer twice \(Conv2D\) is used more than once/,
  },
  "a second input": {
    build() {
      const images = [tf.input({ shape: [4, 4, 2] }), tf.input({ shape: [4, 4, 2] })];
      const flat = tf.layers.flatten().apply(tf.layers.add().apply(images)) as (typeof images)[number];
      const head = tf.layers.dense({ units: 2, activation: "softmax" }).apply(flat) as typeof flat;
      return tf.model({ inputs: images, outputs: head, name: "pairs" });
    },
    message: /network pairs must have one input and one output/,
  },
  "a second output": {
    build() {
      const image = tf.input({ shape: [4, 4, 2] });
      const flat = tf.layers.flatten().apply(image) as typeof image;
      const heads = [2, 3].map(
        (units) => tf.layers.dense({ units, activation: "softmax" }).apply(flat) as typeof image,
      );
      return tf.model({ inputs: image, outputs: heads, name: "judges" });
    },
    message: /network judges must have one input and one output/,
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
  "a shape of another number of elements": {
    build: () => sequential(tf.layers.reshape({ targetShape: [5, 5, 3], name: "cut" }), tf.layers.flatten()),
    message: /layer cut \(Reshape\) makes \[3, 5, 5\] of \[3, 16, 8\], which has another number of elements/,
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

test("a layer that compiles to another shape than TensorFlow.js says is blamed for it", () => {
  const plan = planFromLayersModel(sequential(tf.layers.flatten(), tf.layers.dense({ units: 4, name: "wide" })));
  const nodes = plan.nodes.map((node) => (node.name === "wide" ? { ...node, outputShape: [5] } : node));
  const normalization = { mean: [0, 0, 0], standardDeviation: [1, 1, 1] };
  assert.throws(() => buildInferenceModel({ ...plan, nodes }, normalization), {
    code: "INTERNAL",
    message: /^layer wide \(Dense\): compiles to \[N, 4\], the layer says \[N, 5\]/,
  });
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

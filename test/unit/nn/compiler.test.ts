/** Reading networks, building graphs, folding, and the inference model against TensorFlow.js. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { foldBatchNormalization } from "../../../lib/nn/batch-normalization-folding.ts";
import { buildInferenceModel } from "../../../lib/nn/inference-graph.ts";
import { loadLayersModel, saveLayersModel } from "../../../lib/nn/layers-model.ts";
import { small } from "../../../lib/nn/networks/small.ts";
import { networks } from "../../../lib/nn/networks.ts";
import { createGraph } from "../../../lib/nn/onnx/graph.ts";
import { add, matMul, reshape } from "../../../lib/nn/onnx/operators.ts";
import { predictWithLayersModel } from "../../../lib/nn/parity.ts";
import { inverseAxes, permute } from "../../../lib/nn/permute.ts";
import { planFromLayersModel } from "../../../lib/nn/plan.ts";
import { core, layers as tf } from "../../../lib/nn/tensorflow.ts";
import { assertAllClose } from "./layer-harness.ts";
import { byteArray, normalArray } from "./random-arrays.ts";
import { sequential } from "./sequential.ts";

const normalization = { mean: [0.5, 0.4, 0.45], standardDeviation: [0.25, 0.2, 0.3] };
const seed = 21;

/** TensorFlow.js takes seconds for an image. */
const heavy: ReadonlySet<string> = new Set(["paper", "speedrun-wide", "speedrun-deep"]);

for (const network of networks) {
  test(`the inference model of ${network.name} gives the probabilities of TensorFlow.js, for any batch size`, async () => {
    const model = network.build({ height: 16, width: 8, channels: 3, classes: 5, seed });
    await assertSamePredictions(randomized(model), heavy.has(network.name) ? [1] : [1, 3]);
  });
}

const shapes: Readonly<Record<string, () => LayersModel>> = {
  "a convolution with bias before batch normalisation": () =>
    sequential(tf.layers.conv2d({ filters: 4, kernelSize: 3 }), tf.layers.batchNormalization(), tf.layers.flatten()),
  "a dense layer before batch normalisation": () =>
    sequential(tf.layers.flatten(), tf.layers.dense({ units: 6, useBias: false }), tf.layers.batchNormalization()),
  "a convolution with ReLU between it and batch normalisation": () =>
    sequential(
      tf.layers.conv2d({ filters: 4, kernelSize: 3, activation: "relu" }),
      tf.layers.batchNormalization(),
      tf.layers.flatten(),
    ),
  "a depthwise convolution before batch normalisation": () =>
    sequential(
      tf.layers.depthwiseConv2d({ kernelSize: 3, strides: [2, 2], depthMultiplier: 2 }),
      tf.layers.batchNormalization({ scale: false }),
      tf.layers.flatten(),
    ),
  "a separable convolution before batch normalisation": () =>
    sequential(
      tf.layers.separableConv2d({ filters: 5, kernelSize: 3, depthMultiplier: 2, useBias: false } as SeparableOptions),
      tf.layers.batchNormalization({ center: false }),
      tf.layers.flatten(),
    ),
  "dilated convolutions with activation functions": () =>
    sequential(
      tf.layers.conv2d({ filters: 4, kernelSize: 3, dilationRate: 2, padding: "same", activation: "gelu" }),
      tf.layers.depthwiseConv2d({ kernelSize: 2, padding: "same", activation: "swish" }),
      tf.layers.separableConv2d({ filters: 5, kernelSize: 3, dilationRate: 2, activation: "elu" } as SeparableOptions),
      tf.layers.flatten(),
    ),
  "every activation function and layer": () =>
    sequential(
      tf.layers.rescaling({ scale: 0.5, offset: 0.1 }),
      tf.layers.conv2d({ filters: 6, kernelSize: 3, strides: 2, activation: "relu6" }),
      tf.layers.activation({ activation: "gelu" }),
      tf.layers.leakyReLU({ alpha: 0.1 }),
      tf.layers.elu(),
      tf.layers.reLU({ maxValue: 1 }),
      tf.layers.activation({ activation: "softmax" }),
      tf.layers.flatten(),
      tf.layers.dense({ units: 8, activation: "sigmoid" }),
      tf.layers.dense({ units: 8, activation: "tanh" }),
      tf.layers.softmax(),
    ),
  "padding with zeros, and reshaping to images and back": () =>
    sequential(
      tf.layers.zeroPadding2d({ padding: [0, 1] }),
      tf.layers.reshape({ targetShape: [8, 15, 4] }),
      tf.layers.conv2d({ filters: 4, kernelSize: 3 }),
      tf.layers.reshape({ targetShape: [6, 13 * 4] }),
      tf.layers.flatten(),
    ),
  "average pooling with same padding": () =>
    sequential(tf.layers.averagePooling2d({ poolSize: 3, strides: 2, padding: "same" }), tf.layers.flatten()),
};

for (const [name, build] of Object.entries(shapes)) {
  test(`${name} gives the probabilities of TensorFlow.js`, () => assertSamePredictions(randomized(build()), [2]));
}

test("batch normalisation folds into a convolution of any kind or a dense layer, but not past a ReLU", () => {
  const folded = Object.values(shapes)
    .slice(0, 5)
    .map((build) => {
      const { nodes } = foldBatchNormalization(planFromLayersModel(build()));
      return nodes.filter(({ className }) => className === "BatchNormalization").length;
    });
  assert.deepEqual(folded, [0, 0, 1, 0, 0]);
});

test("a convolution that two layers read keeps its batch normalisation apart", async () => {
  const image = tf.input({ shape: [16, 8, 3] });
  type Symbolic = typeof image;
  const stem = tf.layers.conv2d({ filters: 4, kernelSize: 3 }).apply(image) as Symbolic;
  const normalized = tf.layers.batchNormalization().apply(stem) as Symbolic;
  const sum = tf.layers.add().apply([stem, normalized]) as Symbolic;
  const vector = tf.layers.globalAveragePooling2d({}).apply(sum) as Symbolic;
  const head = tf.layers.dense({ units: 3, activation: "softmax" }).apply(vector) as Symbolic;
  const model = randomized(tf.model({ inputs: image, outputs: head }));
  const { nodes } = foldBatchNormalization(planFromLayersModel(model));
  assert.ok(nodes.some(({ className }) => className === "BatchNormalization"));
  await assertSamePredictions(model, [2]);
});

test("batch normalisation folds in each branch of a network by itself", async () => {
  const image = tf.input({ shape: [16, 8, 3] });
  type Symbolic = typeof image;
  const normalized = (layer: LayersModel["layers"][number], x: Symbolic): Symbolic =>
    tf.layers.batchNormalization().apply(layer.apply(x)) as Symbolic;
  const same = { kernelSize: 3, padding: "same" } as const;
  const stem = normalized(tf.layers.conv2d({ filters: 4, ...same }), image);
  const left = normalized(tf.layers.depthwiseConv2d({ ...same }), stem);
  const right = normalized(tf.layers.separableConv2d({ filters: 4, ...same } as SeparableOptions), stem);
  const joined = tf.layers.concatenate().apply([left, tf.layers.add().apply([stem, right]) as Symbolic]) as Symbolic;
  const vector = tf.layers.globalAveragePooling2d({}).apply(joined) as Symbolic;
  const head = tf.layers.dense({ units: 3, activation: "softmax" }).apply(vector) as Symbolic;
  const model = randomized(tf.model({ inputs: image, outputs: head }));
  const { nodes } = foldBatchNormalization(planFromLayersModel(model));
  assert.ok(nodes.every(({ className }) => className !== "BatchNormalization"));
  await assertSamePredictions(model, [2]);
});

/** The declared types of TensorFlow.js demand options that have defaults, and lack some. */
type DepthwiseOptions = Parameters<typeof tf.layers.depthwiseConv2d>[0];
type SeparableOptions = Parameters<typeof tf.layers.separableConv2d>[0];

test("what TensorFlow.js writes wrongly into a layers model is put right, so that it can be read again", async () => {
  const kernelSize = 3;
  const l2 = tf.regularizers.l2({ l2: 1e-4 });
  const model = sequential(
    tf.layers.depthwiseConv2d({ kernelSize, depthwiseRegularizer: l2 } as DepthwiseOptions),
    tf.layers.separableConv2d({ kernelSize, filters: 2, depthMultiplier: 3 } as SeparableOptions),
    tf.layers.flatten(),
  );
  const loaded = await loadLayersModel(await saveLayersModel(model));
  assert.deepEqual(
    loaded.getWeights().map((w) => w.dataSync()),
    model.getWeights().map((w) => w.dataSync()),
  );
});

test("a layers model keeps its weights through its files, and damaged files are refused", async () => {
  const model = sequential(tf.layers.flatten());
  const files = await saveLayersModel(model);
  const loaded = await loadLayersModel(files);
  assert.deepEqual(
    loaded.getWeights().map((w) => w.dataSync()),
    model.getWeights().map((w) => w.dataSync()),
  );
  await assert.rejects(loadLayersModel({ ...files, weights: files.weights.slice(0, 8) }), { code: "ARTIFACT_CORRUPT" });
  await assert.rejects(loadLayersModel({ ...files, modelJson: "{}" }), { code: "ARTIFACT_CORRUPT" });
});

test("turning axes moves every element to its place, and back", () => {
  const values = Float32Array.of(0, 1, 2, 3, 4, 5);
  assert.deepEqual([...permute(values, [2, 3], [1, 0])], [0, 3, 1, 4, 2, 5]);
  const random = normalArray(seed, 2 * 3 * 4 * 5);
  const axes = [3, 2, 0, 1];
  assert.deepEqual(permute(permute(random, [2, 3, 4, 5], axes), [5, 4, 2, 3], inverseAxes(axes)), random);
});

test("a graph refuses shapes that do not fit and names that are taken", () => {
  const graph = createGraph({ name: "test" });
  const x = graph.input("x", "float32", ["N", 3]);
  assert.throws(() => graph.input("x", "float32", []), /two values named x/);
  assert.throws(
    () => matMul(graph, x, graph.tensor("w", "float32", [2, 2], [1, 2, 3, 4])),
    /cannot multiply matrices \[N, 3\]/,
  );
  assert.throws(() => add(graph, x, graph.tensor("b", "float32", [2], [1, 2])), /do not broadcast/);
  assert.throws(() => reshape(graph, x, ["N", 4]), /cannot reshape/);
  assert.throws(() => graph.tensor("t", "float32", [3], [1]), /has 1 elements/);
});

test("a mirrored model takes the mean over each image and its mirror image", () =>
  assertSamePredictions(randomized(small.build({ height: 16, width: 8, channels: 3, classes: 5, seed })), [1, 3], {
    mirrored: true,
  }));

/** Random weights, running statistics and biases too, so that nothing is hidden by a zero. */
function randomized(model: LayersModel): LayersModel {
  const tensors = model.getWeights().map((tensor, index) => {
    const values = normalArray(seed + index, tensor.size);
    const positive = model.weights[index]?.originalName.endsWith("moving_variance") ?? false;
    const spread = tensor.rank > 1 ? 1 / Math.sqrt(tensor.size / (tensor.shape.at(-1) ?? 1)) : 0.5;
    return core.tensor(
      values.map((value) => (positive ? 0.5 + value * value : value * spread)),
      tensor.shape,
    );
  });
  model.setWeights(tensors);
  return model;
}

async function assertSamePredictions(
  model: LayersModel,
  batchSizes: readonly number[],
  { mirrored = false } = {},
): Promise<void> {
  const onnx = buildInferenceModel(planFromLayersModel(model), { ...normalization, mirrored });
  const session = await InferenceSession.create(onnx, { logSeverityLevel: 3, intraOpNumThreads: 1 });
  const files = await saveLayersModel(model);
  const { height, width } = planFromLayersModel(model).input;
  for (const n of batchSizes) {
    const pixels = byteArray(seed, n * 3 * height * width);
    const results = await session.run({ pixels: new Tensor("uint8", pixels, [n, 3, height, width]) });
    const expected = await predictWithLayersModel(files, { pixels, count: n, normalization, mirrored });
    assertAllClose(results.probabilities?.data as Float32Array, expected, 1e-4, `probabilities of ${n}, seed ${seed}`);
    assert.equal(results.logits?.data.length, expected.length);
  }
  await session.release();
}

/** Whole training steps, against TensorFlow.js. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { ModelProtoSchema } from "../../../gen/onnx/onnx_pb.ts";
import type { OptimizerConfig } from "../../../lib/nn/configuration.ts";
import { buildPaperNetwork } from "../../../lib/nn/networks/paper.ts";
import { buildResnet9 } from "../../../lib/nn/networks/resnet9.ts";
import { small } from "../../../lib/nn/networks/small.ts";
import { buildSpeedrun } from "../../../lib/nn/networks/speedrun.ts";
import { type NetworkPlan, planFromLayersModel, writeWeights } from "../../../lib/nn/plan.ts";
import { writeSmoothLabel } from "../../../lib/nn/targets.ts";
import { layers as tf } from "../../../lib/nn/tensorflow.ts";
import { buildTrainingProgram, type TrainingProgram } from "../../../lib/nn/training-graph.ts";
import { createTrainingSession } from "../../../lib/nn/training-session.ts";
import { assertAllClose } from "./layer-harness.ts";
import { byteArray } from "./random-arrays.ts";
import { createReferenceTrainer } from "./reference-training.ts";
import { separableNetwork } from "./separable-network.ts";

const batchSize = 8;
const classes = 4;
const seed = 5;
const normalization = { mean: [0.5, 0.4, 0.45], standardDeviation: [0.25, 0.2, 0.3] };
/** Takes away two percent a step at the rates below: after ten of them, far more than the tolerance. */
const weightDecay = 20;
const sgd = {
  kind: "sgd",
  learningRate: 0.001,
  biasLearningRateFactor: 1,
  gradientClipNorm: 0,
  momentum: 0.9,
  nesterov: true,
  weightDecay,
} as const satisfies OptimizerConfig;
const adamw = {
  kind: "adamw",
  learningRate: 1e-3,
  biasLearningRateFactor: 1,
  gradientClipNorm: 0,
  beta1: 0.9,
  beta2: 0.999,
  epsilon: 1e-3,
  weightDecay,
} as const satisfies OptimizerConfig;
const muon = {
  kind: "muon",
  learningRate: 0.005,
  biasLearningRateFactor: 0.4,
  otherLearningRateFactor: 0.2,
  gradientClipNorm: 0,
  momentum: 0.6,
  weightDecay,
} as const satisfies OptimizerConfig;
const { weightDecay: _, ...withoutDecay } = adamw;

const input = { height: 8, width: 8, channels: 3, classes, seed };
/** The networks of the product; all but the small one narrower than there, for TensorFlow.js is slow here. */
const subjects: Readonly<Record<string, () => LayersModel>> = {
  small: () => small.build(input),
  "speedrun-deep": () => buildSpeedrun(input, { blocks: [6, 12], residual: true }),
  resnet9: () => buildResnet9(input, { width: 4 }),
  paper: () => buildPaperNetwork(input, { blocks: [8, 16, 32].map((filters) => ({ filters, dropout: 0 })), units: 32 }),
};

const optimizers: Readonly<Record<string, OptimizerConfig>> = {
  "SGD with Nesterov's momentum and weight decay": sgd,
  "SGD with classical momentum": { ...sgd, nesterov: false, weightDecay: 0 },
  "SGD with clipped gradients and faster biases": { ...sgd, gradientClipNorm: 0.5, biasLearningRateFactor: 3 },
  Adam: { ...withoutDecay, kind: "adam" },
  AdamW: adamw,
  Muon: muon,
};

for (const [name, build] of Object.entries(subjects)) {
  for (const [method, optimizer] of Object.entries(optimizers)) {
    test(`ten steps of ${name} by ${method} end at the weights of TensorFlow.js`, () =>
      assertSameTraining(build, optimizer));
  }
}

/** Large enough for convolutions by Winograd's algorithm, which the others are not. */
const onLargerImages = () => small.build({ ...input, height: 16, width: 16 });

for (const [method, optimizer] of Object.entries({ SGD: sgd, Muon: muon })) {
  test(`ten steps with Winograd's algorithm by ${method} end at the weights of TensorFlow.js`, async () => {
    const plan = planFromLayersModel(onLargerImages());
    assert.ok(winogradConvolutions(buildTrainingProgram(plan, { batchSize, normalization, optimizer })) > 0);
    await assertSameTraining(onLargerImages, optimizer);
  });
}

test("ten steps of a network with branches that join end at the weights of TensorFlow.js", () =>
  assertSameTraining(residualNetwork, sgd));

for (const [method, optimizer] of Object.entries({ SGD: sgd, AdamW: adamw })) {
  test(`ten steps of separable convolutions with L2 regularisers by ${method} end at the weights of TensorFlow.js`, () =>
    assertSameTraining(() => separableNetwork(input), optimizer));
}

test("ten steps of separable convolutions by Muon, whose depthwise kernels SGD updates, end at the weights of TensorFlow.js", () =>
  assertSameTraining(() => separableNetwork(input), muon));

test("images that weigh more move the weights more, as in TensorFlow.js", () =>
  assertSameTraining(() => small.build(input), sgd, { weights: [0.5, 1, 3, 0.25] }));

test("frozen first layers stay what they are and the rest trains as in TensorFlow.js", () =>
  assertSameTraining(frozenNetwork, sgd));

test("a layer that is frozen behind a trained one is an error with its name", () => {
  const model = frozenNetwork();
  model.getLayer("first").trainable = true;
  assert.throws(() => buildTrainingProgram(planFromLayersModel(model), { batchSize, normalization, optimizer: sgd }), {
    code: "LAYER_UNSUPPORTED",
    message: /layer also-frozen .*only the first layers can be frozen/,
  });
});

test("a step without momentum keeps no optimiser state", () => {
  const optimizer = { ...sgd, momentum: 0 };
  const program = buildTrainingProgram(planFromLayersModel(residualNetwork()), { batchSize, normalization, optimizer });
  const weights = program.plan.nodes.flatMap((node) => node.weights);
  assert.equal(program.state.length, weights.length);
});

test("a masked value gets neither output nor gradient, a kept one grows by 1 / (1 - rate)", async () => {
  const model = tf.sequential();
  model.add(tf.layers.flatten({ inputShape: [1, 2, 1] }));
  model.add(tf.layers.dropout({ rate: 0.75 }));
  model.add(tf.layers.dense({ units: 2, activation: "softmax", kernelInitializer: "ones" }));
  const plan = planFromLayersModel(model);
  const optimizer = { ...sgd, learningRate: 1, momentum: 0, weightDecay: 0 };
  const program = buildTrainingProgram(plan, {
    batchSize: 1,
    normalization: { mean: [0], standardDeviation: [1 / 255] },
    optimizer,
  });
  const session = await createTrainingSession(program, { intraOpThreads: 1 });
  const batch = { pixels: Uint8Array.of(3, 5), targets: Float32Array.of(1, 0), masks: [Float32Array.of(0, 4)] };
  await session.step(batch, program.optimizer.scalars(1, 1));
  // Both logits are 4 * 5, so the probabilities are one half each and the gradient to the kernel is x (p - t).
  const kernel = session.state().get(`${model.layers[2]?.name}/kernel`);
  assertAllClose(kernel ?? [], [1, 1, 1 + 20 * 0.5, 1 - 20 * 0.5], 1e-5, "kernel");
  await session.release();
});

/**
 * Weights agree to 1e-3 of their size plus 1e-3: float32 in another order of summation, through ten steps. `weights` are those of the
 * classes in the loss.
 */
async function assertSameTraining(
  build: () => LayersModel,
  optimizer: OptimizerConfig,
  { weights }: { weights?: readonly number[] } = {},
): Promise<void> {
  const [ours, theirs] = [withoutDropout(build()), withoutDropout(build())];
  const plan = planFromLayersModel(ours);
  const program = buildTrainingProgram(plan, { batchSize, normalization, optimizer });
  const session = await createTrainingSession(program, { intraOpThreads: 1 });
  const train = createReferenceTrainer(theirs, optimizer, normalization);
  for (let step = 1; step <= 10; step++) {
    const batch = randomBatch(seed + step, plan.input, weights);
    const scalars = program.optimizer.scalars(step, optimizer.learningRate);
    const { loss } = await session.step({ ...batch, masks: [] }, scalars);
    assertAllClose([loss], [train(batch)], 1e-3, `loss of step ${step}, seed ${seed}`);
  }
  writeWeights(ours, plan, session.state());
  for (const [index, weight] of ours.weights.entries()) {
    const expected = theirs.weights[index]?.read().dataSync() as Float32Array;
    assertAllClose(weight.read().dataSync() as Float32Array, expected, 1e-3, `${weight.originalName}, seed ${seed}`);
  }
  await session.release();
}

function randomBatch(
  batchSeed: number,
  { channels, height, width }: NetworkPlan["input"],
  weights: readonly number[] = [],
): { pixels: Uint8Array; targets: Float32Array } {
  const targets = new Float32Array(batchSize * classes);
  for (let image = 0; image < batchSize; image++) {
    const label = image % classes;
    const row = targets.subarray(image * classes, (image + 1) * classes);
    writeSmoothLabel(row, { offset: 0, classes, label, smoothing: 0.1 });
    for (const [index, value] of row.entries()) row[index] = value * (weights[label] ?? 1);
  }
  return { pixels: byteArray(batchSeed, batchSize * channels * height * width), targets };
}

/** How many convolutions of a step are not direct ones: each transforms its kernel with a matrix of its own. */
function winogradConvolutions({ model }: TrainingProgram): number {
  const { initializer = [] } = fromBinary(ModelProtoSchema, model).graph ?? {};
  return initializer.filter(({ name }) => name.startsWith("kernelTransform")).length;
}

/** TensorFlow.js draws its masks where we cannot see them, so both sides do without. */
function withoutDropout(model: LayersModel): LayersModel {
  for (const layer of model.layers) if ("rate" in layer) layer.rate = 0;
  return model;
}

function residualNetwork(): LayersModel {
  const image = tf.input({ shape: [8, 8, 3] });
  type Symbolic = typeof image;
  const conv = (x: Symbolic, name: string, strides = 1): Symbolic => {
    const kernelInitializer = tf.initializers.heNormal({ seed: seed + strides });
    const options = { filters: 6, kernelSize: 3, padding: "same", strides, kernelInitializer, name } as const;
    return tf.layers.conv2d(options).apply(x) as Symbolic;
  };
  const stem = tf.layers.reLU({ name: "stem-relu" }).apply(conv(image, "stem")) as Symbolic;
  const branch = tf.layers.batchNormalization({ name: "norm" }).apply(conv(stem, "branch")) as Symbolic;
  const sum = tf.layers.add({ name: "sum" }).apply([stem, branch, conv(stem, "other")]) as Symbolic;
  const pooled = tf.layers.averagePooling2d({ poolSize: 2, name: "pool" }).apply(conv(sum, "down", 2)) as Symbolic;
  const vector = tf.layers.globalAveragePooling2d({ name: "global" }).apply(pooled) as Symbolic;
  const kernelInitializer = tf.initializers.glorotNormal({ seed });
  const head = tf.layers.dense({ units: classes, activation: "softmax", kernelInitializer, name: "head" });
  return tf.model({ inputs: image, outputs: head.apply(vector) as Symbolic });
}

/** Two frozen convolutions before what is trained. */
function frozenNetwork(): LayersModel {
  const model = tf.sequential();
  const kernelInitializer = tf.initializers.heNormal({ seed });
  const convolution = { kernelSize: 3, kernelInitializer } as const;
  model.add(tf.layers.conv2d({ ...convolution, name: "first", filters: 4, inputShape: [8, 8, 3], trainable: false }));
  model.add(tf.layers.conv2d({ ...convolution, name: "also-frozen", filters: 4, trainable: false }));
  model.add(tf.layers.conv2d({ ...convolution, name: "second", filters: 5, activation: "relu" }));
  model.add(tf.layers.flatten({ name: "flatten" }));
  model.add(tf.layers.dense({ name: "head", units: classes, activation: "softmax", kernelInitializer }));
  return model;
}

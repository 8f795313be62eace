/** Whole training steps, against TensorFlow.js. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { LayersModel } from "@tensorflow/tfjs-layers";
import type { OptimizerConfig } from "../../../lib/nn/configuration.ts";
import { writeSmoothLabel } from "../../../lib/nn/cross-entropy.ts";
import { buildPaperNetwork } from "../../../lib/nn/networks/paper.ts";
import { small } from "../../../lib/nn/networks/small.ts";
import { createOptimizer } from "../../../lib/nn/optimizers.ts";
import { planFromLayersModel, writeWeights } from "../../../lib/nn/plan.ts";
import { layers as tf } from "../../../lib/nn/tensorflow.ts";
import { buildTrainingProgram } from "../../../lib/nn/training-graph.ts";
import { createTrainingSession } from "../../../lib/nn/training-session.ts";
import { assertAllClose } from "./layer-harness.ts";
import { byteArray } from "./random-arrays.ts";
import { createReferenceTrainer } from "./reference-training.ts";

const batchSize = 8;
const classes = 4;
const seed = 5;
const normalization = { mean: [0.5, 0.4, 0.45], standardDeviation: [0.25, 0.2, 0.3] };
const sgd: OptimizerConfig = { kind: "sgd", learningRate: 0.005, momentum: 0.9, nesterov: true, weightDecay: 0.01 };
const adam: OptimizerConfig = {
  kind: "adam",
  learningRate: 1e-3,
  beta1: 0.9,
  beta2: 0.999,
  epsilon: 1e-3,
  weightDecay: 0.01,
};

const input = { height: 8, width: 8, channels: 3, classes, seed };
/** The networks of the product; the paper's at an eighth of its width, for TensorFlow.js is slow here. */
const subjects: Readonly<Record<string, () => LayersModel>> = {
  small: () => small.build(input),
  paper: () => buildPaperNetwork(input, { blocks: [8, 16, 32].map((filters) => ({ filters, dropout: 0 })), units: 32 }),
};

for (const [name, build] of Object.entries(subjects)) {
  for (const optimizer of [sgd, { ...sgd, nesterov: false, weightDecay: 0 }, adam]) {
    const momentum =
      optimizer.kind === "sgd" && (optimizer.nesterov ? ", Nesterov's momentum" : ", classical momentum");
    test(`three steps of ${name} by ${optimizer.kind}${momentum || ""} end at the weights of TensorFlow.js`, () =>
      assertSameTraining(build, optimizer));
  }
}

test("three steps of a network with branches that join end at the weights of TensorFlow.js", () =>
  assertSameTraining(residualNetwork, sgd));

test("a step without momentum keeps no optimiser state", () => {
  const optimizer = createOptimizer({ ...sgd, momentum: 0 });
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
  const optimizer = createOptimizer({ ...sgd, learningRate: 1, momentum: 0, weightDecay: 0 });
  const program = buildTrainingProgram(plan, {
    batchSize: 1,
    normalization: { mean: [0], standardDeviation: [1 / 255] },
    optimizer,
  });
  const session = await createTrainingSession(program, { intraOpThreads: 1 });
  const batch = { pixels: Uint8Array.of(3, 5), targets: Float32Array.of(1, 0), masks: [Float32Array.of(0, 4)] };
  await session.step(batch, optimizer.scalars(1, 1));
  // Both logits are 4 * 5, so the probabilities are one half each and the gradient to the kernel is x (p - t).
  const kernel = session.state().get(`${model.layers[2]?.name}/kernel`);
  assertAllClose(kernel ?? [], [1, 1, 1 + 20 * 0.5, 1 - 20 * 0.5], 1e-5, "kernel");
  await session.release();
});

/** Weights agree to 1e-3 of their size plus 1e-3: float32 in another order of summation, through three steps. */
async function assertSameTraining(build: () => LayersModel, config: OptimizerConfig): Promise<void> {
  const [ours, theirs] = [withoutDropout(build()), withoutDropout(build())];
  const plan = planFromLayersModel(ours);
  const optimizer = createOptimizer(config);
  const session = await createTrainingSession(buildTrainingProgram(plan, { batchSize, normalization, optimizer }), {
    intraOpThreads: 1,
  });
  const train = createReferenceTrainer(theirs, config, normalization);
  for (let step = 1; step <= 3; step++) {
    const batch = randomBatch(seed + step);
    const { loss } = await session.step({ ...batch, masks: [] }, optimizer.scalars(step, config.learningRate));
    assertAllClose([loss], [train(batch)], 1e-4, `loss of step ${step}, seed ${seed}`);
  }
  writeWeights(ours, plan, session.state());
  for (const [index, weight] of ours.weights.entries()) {
    const expected = theirs.weights[index]?.read().dataSync() as Float32Array;
    assertAllClose(weight.read().dataSync() as Float32Array, expected, 1e-3, `${weight.originalName}, seed ${seed}`);
  }
  await session.release();
}

function randomBatch(batchSeed: number): { pixels: Uint8Array; targets: Float32Array } {
  const targets = new Float32Array(batchSize * classes);
  for (let image = 0; image < batchSize; image++) {
    writeSmoothLabel(targets, { offset: image * classes, classes, label: image % classes, smoothing: 0.1 });
  }
  return { pixels: byteArray(batchSeed, batchSize * 3 * 8 * 8), targets };
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

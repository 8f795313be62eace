/**
 * The tensorflow engine against the default one. Everywhere on TensorFlow.js's JavaScript backend, which has the same operations;
 * on the native one where it is installed, or where MILLRACE_TEST_TFJS_NODE names a folder that it was built in.
 */
import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { AppError } from "../../../lib/errors.ts";
import { fillMask } from "../../../lib/nn/batches.ts";
import { type OptimizerConfig, resolveTrainingConfig, type TrainingConfig } from "../../../lib/nn/configuration.ts";
import type { NetworkTrainer, TrainingEngine } from "../../../lib/nn/engine.ts";
import { onnxruntimeEngine } from "../../../lib/nn/engines/onnxruntime.ts";
import { createTensorflowEngine } from "../../../lib/nn/engines/tensorflow.ts";
import { checkNode, nativeBackend, type TensorBackend } from "../../../lib/nn/engines/tensorflow-backend.ts";
import { buildPaperNetwork } from "../../../lib/nn/networks/paper.ts";
import { buildResnet9 } from "../../../lib/nn/networks/resnet9.ts";
import { small } from "../../../lib/nn/networks/small.ts";
import { buildSpeedrun } from "../../../lib/nn/networks/speedrun.ts";
import { createRandom } from "../../../lib/nn/random.ts";
import { writeSmoothLabel } from "../../../lib/nn/targets.ts";
import { core, layers as tf } from "../../../lib/nn/tensorflow.ts";
import type { TrainingBatch } from "../../../lib/nn/training-session.ts";
import { assertAllClose } from "./layer-harness.ts";
import { byteArray } from "./random-arrays.ts";
import { separableNetwork } from "./separable-network.ts";

/** Allowed difference after the last step, relative plus absolute: float32 in another order of summation. */
const tolerance = 1e-3;
const steps = 10;
const batchSize = 8;
const classes = 4;
const seed = 5;
const normalization = { mean: [0.5, 0.4, 0.45], standardDeviation: [0.25, 0.2, 0.3] };
const input = { height: 8, width: 8, channels: 3, classes, seed };

const javascriptBackend: TensorBackend = {
  version: core.version_core,
  check: () => undefined,
  load: async () => void (await core.setBackend("cpu")),
};
const builtIn = process.env.MILLRACE_TEST_TFJS_NODE;
const native = builtIn === undefined ? nativeBackend() : nativeBackend(path.resolve(builtIn, "package.json"));

const backends: Readonly<Record<string, { backend: TensorBackend; skip: string | false }>> = {
  JavaScript: { backend: javascriptBackend, skip: false },
  native: { backend: native, skip: reasonToSkip(native) },
};
const networks: Readonly<Record<string, () => LayersModel>> = {
  small: () => small.build(input),
  paper: () => {
    const blocks = [8, 16, 32].map((filters, block) => ({ filters, dropout: 0.2 + block / 10 }));
    return buildPaperNetwork(input, { blocks, units: 32 });
  },
  speedrun: () => buildSpeedrun(input, { blocks: [6, 12] }),
  "speedrun-deep": () => buildSpeedrun(input, { blocks: [6, 12], residual: true }),
  resnet9: () => buildResnet9(input, { width: 4 }),
  "a network with a frozen beginning": frozenBeginning,
  "a network of separable convolutions": () => separableNetwork(input),
};
type Options<Kind> = Extract<OptimizerConfig, { kind: Kind }>;
const shared = { biasLearningRateFactor: 1, gradientClipNorm: 0 };
// What decays does so by two percent a step: after ten of them, far more than the tolerance.
const sgd: Options<"sgd"> = {
  ...{ ...shared, kind: "sgd", learningRate: 3e-4 },
  ...{ momentum: 0.9, nesterov: true, weightDecay: 60 },
};
const adam = { ...shared, learningRate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-3 };
const optimizers: Readonly<Record<string, OptimizerConfig>> = {
  "SGD with Nesterov's momentum": sgd,
  "SGD with classical momentum": { ...sgd, nesterov: false, weightDecay: 0 },
  "SGD without momentum, with clipped gradients": { ...sgd, momentum: 0, gradientClipNorm: 0.1 },
  Adam: { ...adam, kind: "adam" },
  "AdamW with its own learning rate for biases": {
    ...{ ...adam, kind: "adamw", weightDecay: 20 },
    ...{ biasLearningRateFactor: 8, gradientClipNorm: 1 },
  },
  Muon: {
    ...{ ...shared, kind: "muon", learningRate: 0.003, momentum: 0.6 },
    ...{ otherLearningRateFactor: 0.1, weightDecay: 60 },
  },
};

for (const [name, { backend, skip }] of Object.entries(backends)) {
  if (skip !== false) test(`the ${name} backend agrees with the default engine`, { skip }, () => undefined);
  for (const [network, build] of skip === false ? Object.entries(networks) : []) {
    for (const [kind, optimizer] of Object.entries(optimizers)) {
      test(`${steps} steps of ${network} by ${kind} on the ${name} backend end at the default engine's weights`, () =>
        assertSameTraining(createTensorflowEngine(backend), build, optimizer));
    }
  }
}

test("each engine goes on from the other's state", async () => {
  const [ours, theirs] = [onnxruntimeEngine, createTensorflowEngine(javascriptBackend)];
  const states = [];
  for (const [first, second] of [
    [ours, theirs],
    [theirs, ours],
  ] as const) {
    const config = configOf(sgd);
    const before = await first.createTrainer({ model: small.build(input), config, normalization });
    await runSteps(before, config, 0, 2);
    const state = new Map(Array.from(before.state(), ([key, values]) => [key, values.slice()]));
    const after = await second.createTrainer({ model: small.build(input), config, normalization, state });
    await runSteps(after, config, 2, 4);
    states.push(after.state());
    await before.release();
  }
  assertSameState(states[0] ?? assert.fail(), states[1] ?? assert.fail());
});

test("a state that lacks a tensor is refused by its name", async () => {
  const options = { model: small.build(input), config: configOf(sgd), normalization, state: new Map() };
  await assert.rejects(createTensorflowEngine(javascriptBackend).createTrainer(options), {
    code: "ARTIFACT_CORRUPT",
    message: /no tensor .*kernel/,
  });
});

test("a trainer that is released leaves no tensor behind", async () => {
  const config = configOf(sgd);
  await core.setBackend("cpu");
  const model = small.build(input);
  const before = core.memory().numTensors;
  const trainer = await createTensorflowEngine(javascriptBackend).createTrainer({ model, config, normalization });
  const started = core.memory().numTensors;
  await runSteps(trainer, config, 0, 1);
  assert.equal(core.memory().numTensors, started, "after a step");
  await trainer.release();
  assert.equal(core.memory().numTensors, before, "after the release");
});

test("a missing native library is one sentence that says how to get it", () => {
  const elsewhere = nativeBackend(path.join(import.meta.dirname, "no", "such", "package.json"), "20.19.0");
  const nowhere = nativeBackend("/no/such/folder/package.json", "20.19.0");
  for (const backend of [nowhere, ...(reasonToSkip(elsewhere) ? [elsewhere] : [])]) {
    assert.throws(
      () => backend.check(),
      (thrown) => {
        assert.ok(thrown instanceof AppError);
        assert.equal(thrown.code, "ENGINE_UNAVAILABLE");
        assert.match(thrown.message, /npm rebuild @tensorflow\/tfjs-node --ignore-scripts=false/);
        assert.match(thrown.message, /unset MILLRACE_ENGINE/);
        return true;
      },
    );
  }
});

test("a missing package is to be installed before its native library", () => {
  assert.throws(() => nativeBackend("/no/such/folder/package.json", "20.19.0").check(), {
    code: "ENGINE_UNAVAILABLE",
    message: /is not installed; install it first: `npm install --include=optional`, then .*npm rebuild/,
  });
});

test("a Node that tfjs-node does not work with is refused by its version", () => {
  for (const version of ["20.20.2", "22.23.0"]) checkNode(version);
  assert.throws(() => checkNode("23.0.0"), { code: "ENGINE_UNAVAILABLE", message: /Node 23\.0\.0.*use Node 20 or 22/ });
  assert.throws(() => checkNode("24.1.0"), { code: "ENGINE_UNAVAILABLE", message: /unset MILLRACE_ENGINE/ });
});

/** A convolution and a normalisation that stay what they are, as a whitening layer does; the rest is trained. */
function frozenBeginning(): LayersModel {
  const kernelInitializer = tf.initializers.heNormal({ seed });
  const model = tf.sequential();
  model.add(
    tf.layers.conv2d({
      ...{ name: "first", filters: 6, kernelSize: 2, inputShape: [8, 8, 3] },
      kernelInitializer,
      trainable: false,
    }),
  );
  model.add(tf.layers.batchNormalization({ name: "norm", trainable: false }));
  model.add(tf.layers.conv2d({ name: "second", filters: 8, kernelSize: 3, useBias: false, kernelInitializer }));
  model.add(tf.layers.batchNormalization({ name: "second-norm", scale: false, momentum: 0.6 }));
  model.add(tf.layers.reLU({ name: "relu" }));
  model.add(tf.layers.globalMaxPooling2d({ name: "global" }));
  model.add(tf.layers.dense({ name: "head", units: classes, kernelInitializer }));
  model.add(tf.layers.softmax({ name: "probabilities" }));
  return model;
}

function reasonToSkip(backend: TensorBackend): string | false {
  try {
    backend.check();
    return false;
  } catch (thrown) {
    return AppError.from(thrown).message;
  }
}

function configOf(optimizer: OptimizerConfig): TrainingConfig {
  return resolveTrainingConfig("small", { batchSize, optimizer, intraOpThreads: 1 });
}

async function assertSameTraining(
  engine: TrainingEngine,
  build: () => LayersModel,
  optimizer: OptimizerConfig,
): Promise<void> {
  const config = configOf(optimizer);
  const [model, reference] = [build(), build()];
  const trainer = await engine.createTrainer({ model, config, normalization });
  const expected = await onnxruntimeEngine.createTrainer({ model: reference, config, normalization });
  assert.deepEqual(
    trainer.masks.map(({ name, shape }) => ({ name, shape })),
    expected.masks.map(({ name, shape }) => ({ name, shape })),
  );
  const [losses, expectedLosses] = [
    await runSteps(trainer, config, 0, steps),
    await runSteps(expected, config, 0, steps),
  ];
  assertAllClose(losses, expectedLosses, tolerance, `losses, seed ${seed}`);
  assertSameState(trainer.state(), expected.state());
  trainer.writeWeights();
  expected.writeWeights();
  for (const [index, weight] of model.weights.entries()) {
    const values = reference.weights[index]?.read().dataSync() as Float32Array;
    assertAllClose(weight.read().dataSync() as Float32Array, values, tolerance, `${weight.originalName}, seed ${seed}`);
  }
  await Promise.all([trainer.release(), expected.release()]);
}

function assertSameState(actual: ReadonlyMap<string, Float32Array>, expected: ReadonlyMap<string, Float32Array>): void {
  assert.deepEqual([...actual.keys()].sort(), [...expected.keys()].sort());
  for (const [key, values] of actual)
    assertAllClose(values, expected.get(key) ?? [], tolerance, `${key}, seed ${seed}`);
}

/** Runs the steps from `first` up to `end`, each on a batch of its own, and gives their losses. */
async function runSteps(
  trainer: NetworkTrainer,
  config: TrainingConfig,
  first: number,
  end: number,
): Promise<number[]> {
  const losses: number[] = [];
  for (let step = first; step < end; step++) {
    const { loss } = await trainer.step(randomBatch(trainer, step), {
      step,
      learningRate: config.optimizer.learningRate,
    });
    losses.push(loss);
  }
  return losses;
}

function randomBatch({ masks }: NetworkTrainer, step: number): TrainingBatch {
  const targets = new Float32Array(batchSize * classes);
  for (let image = 0; image < batchSize; image++) {
    const label = image % classes;
    // The images of one class count twice, as class weights make them.
    writeSmoothLabel(targets, { offset: image * classes, classes, label, smoothing: 0.1, weight: label === 0 ? 2 : 1 });
  }
  const random = createRandom(seed + step);
  return {
    pixels: byteArray(seed + step, batchSize * 3 * 8 * 8),
    targets,
    masks: masks.map((mask) => {
      const values = new Float32Array(mask.shape.reduce((product, length) => product * length, 1));
      fillMask(random, mask, values);
      return values;
    }),
  };
}

/** Images held out of a training: which they are, what they decide, and when the training ends. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { resolveTrainingConfig } from "../../../lib/nn/configuration.ts";
import { splitTrainingData } from "../../../lib/nn/data-split.ts";
import { bestEpoch, measureEpoch, trainingEnd } from "../../../lib/nn/epochs.ts";
import { createInferenceWorker } from "../../../lib/nn/inference.ts";
import { evaluatePredictions } from "../../../lib/nn/metrics.ts";
import { type EpochReport, startTraining } from "../../../lib/nn/training.ts";
import type { TrainingData } from "../../../lib/nn/training-data.ts";
import { assertAllClose } from "./layer-harness.ts";
import { blotData } from "./training-data.ts";

const data = blotData({ images: 200 });
const overrides = {
  epochs: 3,
  batchSize: 32,
  intraOpThreads: 1,
  validationShare: 0.2,
  augmentation: { translation: 1 },
};

function reports(...accuracies: readonly number[]): EpochReport[] {
  return accuracies.map((validationAccuracy, index) => ({
    epoch: index + 1,
    epochs: 9,
    loss: 1,
    accuracy: 0.5,
    learningRate: 0.1,
    imagesPerSecond: 1,
    durationMs: 1,
    remainingMs: 1,
    validationAccuracy,
  }));
}

test("a share of each class is held out, by the seed, and the rest is trained on", () => {
  const labels = Uint16Array.from({ length: 100 }, (_, index) => (index < 80 ? 0 : 1));
  const split = (seed: number) =>
    splitTrainingData({ classes: ["common", "rare"], labels }, { validationShare: 0.1, seed });
  const { training, validation } = split(1);
  assert.deepEqual(
    [...training, ...validation].sort((a, b) => a - b),
    Array.from(labels.keys()),
  );
  assert.equal(validation.filter((index) => labels[index] === 0).length, 8);
  assert.equal(validation.filter((index) => labels[index] === 1).length, 2);
  assert.deepEqual(split(1), split(1));
  assert.notDeepEqual(split(1).validation, split(2).validation);
});

test("without a share every image is trained on", () => {
  const { training, validation } = splitTrainingData(data, { validationShare: 0, seed: 1 });
  assert.deepEqual([training.length, validation.length], [200, 0]);
});

test("a class of which nothing would be left on either side is an error that names it", () => {
  const labels = Uint16Array.from([0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
  const split = (validationShare: number) => () =>
    splitTrainingData({ classes: ["common", "rare"], labels }, { validationShare, seed: 1 });
  const code = "CONFIGURATION_INVALID";
  assert.throws(split(0.2), { code, message: /2 images of class rare leaves none to validate on/ });
  assert.throws(split(0.8), { code, message: /2 images of class rare leaves none to train on/ });
  split(0.5)();
});

for (const kind of ["none", "ema", "lookahead"] as const) {
  test(`after each epoch the weights are measured as they would be served, with averaging by ${kind}`, async () => {
    // Five steps an epoch: the last move of lookahead is not at the end of one.
    const weightAveraging = { kind, ...(kind === "ema" && { decay: 0.9 }), ...(kind === "lookahead" && { every: 4 }) };
    const config = resolveTrainingConfig("small", { ...overrides, weightAveraging });
    const { onnx, epochs, keptEpoch, end } = await startTraining({ network: "small", data, config }).result;
    assert.deepEqual([keptEpoch, end], [3, "completed"]);
    const { validation } = splitTrainingData(data, config);
    const { accuracy, logLoss } = await evaluate(onnx, validation);
    assert.equal(epochs[2]?.validationAccuracy, accuracy);
    assertAllClose([epochs[2]?.validationLoss ?? Number.NaN], [logLoss], 1e-6, "loss");
  });
}

test("keeping the best gives the model of the epoch with the highest validation accuracy", async () => {
  const changes = { keep: "best", epochs: 12, optimizer: { learningRate: 2 } };
  const config = resolveTrainingConfig("small", { ...overrides, ...changes });
  const { onnx, epochs, keptEpoch } = await startTraining({ network: "small", data, config }).result;
  const accuracies = epochs.map(({ validationAccuracy = 0 }) => validationAccuracy);
  assert.ok(keptEpoch < 12, `accuracies ${accuracies.join(", ")}`);
  assert.equal(accuracies[keptEpoch - 1], Math.max(...accuracies));
  const { validation } = splitTrainingData(data, config);
  const { logLoss } = await evaluate(onnx, validation);
  assertAllClose([epochs[keptEpoch - 1]?.validationLoss ?? Number.NaN], [logLoss], 1e-6, "loss");
});

test("the time left is that of the steps and, once one has been timed, of the validations still to come", async () => {
  const config = resolveTrainingConfig("small", overrides);
  const sums = { steps: 5, loss: 5, correct: 80, durationMs: 100 };
  const left = (position: object) => {
    const here = {
      config,
      epoch: 1,
      learningRate: 0.1,
      stepsLeft: 10,
      validationsLeft: 2,
      validationMs: 0,
      ...position,
    };
    return measureEpoch(sums, { leftMs: Number.POSITIVE_INFINITY, ...here }).remainingMs;
  };
  assert.deepEqual([left({}), left({ validationMs: 30 }), left({ validationMs: 30, leftMs: 90 })], [200, 260, 90]);

  const { epochs } = await startTraining({ network: "small", data, config }).result;
  for (const [index, { durationMs, validationMs = 0, remainingMs }] of epochs.entries()) {
    assert.ok(validationMs > 0);
    assertAllClose([remainingMs], [(2 - index) * (durationMs + validationMs)], 1e-9, `after epoch ${index + 1}`);
  }
});

test("a training stops early once its patience is over, and says so", async () => {
  const config = resolveTrainingConfig("small", { ...overrides, epochs: 50, patience: 2, keep: "best" });
  const { epochs, end, keptEpoch } = await startTraining({ network: "small", data, config }).result;
  assert.equal(end, "early stopping");
  assert.equal(epochs.length, keptEpoch + 2);
});

test("a training ends when its time is over, with a finished schedule, and says so", async () => {
  const schedule = { kind: "cosine", final: 0.25 };
  const changes = { maxMinutes: 1e-6, schedule, optimizer: { learningRate: 0.2 } };
  const config = resolveTrainingConfig("small", { ...overrides, ...changes });
  const { epochs, end } = await startTraining({ network: "small", data, config }).result;
  assert.equal(end, "time budget");
  assert.deepEqual(
    epochs.map(({ learningRate, remainingMs }) => [learningRate, remainingMs]),
    [[0.05, 0]],
  );
});

test("the best epoch is the first of equal ones, and of those without validation", () => {
  assert.equal(bestEpoch(reports(0.5, 0.8, 0.7, 0.8)), 2);
  assert.equal(bestEpoch([]), 0);
  assert.equal(bestEpoch(reports(0.5).map(({ validationAccuracy: _, ...report }) => report)), 1);
});

test("a training ends with its steps, its time or its patience, whatever comes first", () => {
  const ended = (epochs: EpochReport[], progress: number, { patience = 0, step = 5 * epochs.length } = {}) =>
    trainingEnd(patience, { epochs, step, steps: 45, progress });
  assert.equal(ended([], 1), undefined, "one epoch is always begun");
  assert.equal(ended(reports(0.5), 0.99), undefined);
  assert.equal(ended(reports(0.5), 1), "time budget");
  assert.equal(ended(reports(0.5, 0.6, 0.6), 0.3, { patience: 2 }), undefined);
  assert.equal(ended(reports(0.5, 0.6, 0.6, 0.59), 0.3, { patience: 2 }), "early stopping");
  const all = reports(1, 1, 1, 1, 1, 1, 1, 1, 1);
  assert.equal(ended(all, 1, { patience: 2 }), "completed");
  assert.equal(ended(all, 1, { step: 43 }), "time budget", "it ran out in the last epoch");
});

test("a training whose time runs out in its only epoch does not count as completed", async () => {
  const config = resolveTrainingConfig("small", { ...overrides, epochs: 1, maxMinutes: 1e-6 });
  const { epochs, end } = await startTraining({ network: "small", data, config }).result;
  assert.deepEqual([epochs.length, end], [1, "time budget"]);
});

async function evaluate(onnx: Uint8Array, images: Uint32Array) {
  const { classes, channels, height, width, pixels, labels }: TrainingData = data;
  const size = channels * height * width;
  const chosen = Uint8Array.from(
    Array.from(images, (index) => [...pixels.subarray(index * size, (index + 1) * size)]).flat(),
  );
  await using worker = await createInferenceWorker({ onnx, intraOpThreads: 1 });
  const { probabilities } = await worker.run(chosen, images.length);
  return evaluatePredictions({ probabilities, labels: Array.from(images, (index) => labels[index] ?? 0), classes });
}

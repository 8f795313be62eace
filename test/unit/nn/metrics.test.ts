import assert from "node:assert/strict";
import { test } from "node:test";
import { decide } from "../../../lib/nn/gate.ts";
import { evaluatePredictions, expectedCalibrationError, wilsonInterval } from "../../../lib/nn/metrics.ts";
import { assertAllClose } from "./layer-harness.ts";

/** Six images of three classes. Predicted: a, a, b, b, c, a. */
const predictions = {
  classes: ["a", "b", "c"],
  labels: [0, 0, 0, 1, 2, 2],
  probabilities: Float32Array.of(
    ...[0.8, 0.1, 0.1],
    ...[0.6, 0.3, 0.1],
    ...[0.2, 0.7, 0.1],
    ...[0.1, 0.9, 0],
    ...[0, 0.25, 0.75],
    ...[0.5, 0.1, 0.4],
  ),
};

test("metrics of six predictions are those worked out by hand", () => {
  const quality = evaluatePredictions(predictions);
  assert.deepEqual(quality.confusionMatrix, [2, 1, 0, 0, 1, 0, 1, 0, 1]);
  assert.equal(quality.accuracy, 4 / 6);
  const [a, b, c] = quality.classes;
  assert.deepEqual(a, { name: "a", precision: 2 / 3, recall: 2 / 3, f1: 2 / 3, imageCount: 3 });
  assert.deepEqual(b, { name: "b", precision: 1 / 2, recall: 1, f1: 2 / 3, imageCount: 1 });
  assert.deepEqual(c, { name: "c", precision: 1, recall: 1 / 2, f1: 2 / 3, imageCount: 2 });
  assertAllClose([quality.macroF1], [2 / 3], 1e-12, "macro F1");
  const logs = [0.8, 0.6, 0.2, 0.9, 0.75, 0.4].map(Math.log);
  assertAllClose([quality.logLoss], [-logs.reduce((sum, value) => sum + value, 0) / 6], 1e-6, "log loss");
});

test("the calibration error weighs each bin's gap by its images", () => {
  // Bins of a half: (0.5, 1] has confidences 0.8, 0.6, 0.7, 0.9, 0.75 with 4 hits, (0, 0.5] has 0.5 with none.
  const expected = (Math.abs(4 - 3.75) + Math.abs(0 - 0.5)) / 6;
  assertAllClose([expectedCalibrationError(predictions, 2)], [expected], 1e-6, "ECE");
});

test("a classifier that is always certain and always right has a calibration error of zero", () => {
  const certain = { classes: ["a", "b"], labels: [0, 1], probabilities: Float32Array.of(1, 0, 0, 1) };
  const quality = evaluatePredictions(certain);
  assert.equal(quality.expectedCalibrationError, 0);
  assert.equal(quality.logLoss, 0);
  assert.equal(quality.accuracyHigh, 1);
});

test("a class that is never predicted and never true has zeros, not NaN", () => {
  const quality = evaluatePredictions({ classes: ["a", "b"], labels: [0], probabilities: Float32Array.of(0.9, 0.1) });
  assert.deepEqual(quality.classes[1], { name: "b", precision: 0, recall: 0, f1: 0, imageCount: 0 });
});

test("Wilson's interval is that of the published example and stays within 0 and 1", () => {
  // 81 of 263: Newcombe 1998, Statistics in Medicine 17, table I gives 0.2553 to 0.3662.
  const { low, high } = wilsonInterval(81, 263);
  assertAllClose([low, high], [0.2553, 0.3662], 5e-5, "81 of 263");
  assert.deepEqual(wilsonInterval(0, 5).low, 0);
  assert.ok(wilsonInterval(5, 5).high <= 1);
});

test("predictions that do not fit the labels are an error", () => {
  assert.throws(() => evaluatePredictions({ ...predictions, labels: [0] }), /do not go with/);
  assert.throws(() => evaluatePredictions({ ...predictions, labels: [0, 0, 0, 1, 2, 3] }), /image 5 has label 3/);
  assert.throws(
    () => evaluatePredictions({ ...predictions, labels: [], probabilities: new Float32Array() }),
    /no images/,
  );
});

const evidence = (accuracy: number) => ({ accuracy, accuracyLow: accuracy - 0.02, accuracyHigh: accuracy + 0.02 });

test("the first model goes live when it reaches the minimum, also exactly", () => {
  assert.equal(decide({ candidate: evidence(0.8), minimumAccuracy: 0.8 }).promote, true);
  const { promote, checks } = decide({ candidate: evidence(0.79), minimumAccuracy: 0.8 });
  assert.equal(promote, false);
  assert.deepEqual(
    checks.map(({ name, passed, actual, required }) => ({ name, passed, actual, required })),
    [{ name: "minimum_accuracy", passed: false, actual: 0.79, required: 0.8 }],
  );
  assert.match(checks[0]?.message ?? "", /79\.00 % is below 80\.00 %/);
});

test("a model within the live one's confidence interval goes live, one below it does not", () => {
  const champion = evidence(0.9);
  assert.equal(decide({ candidate: evidence(0.89), champion, minimumAccuracy: 0.5 }).promote, true);
  const { promote, checks } = decide({ candidate: evidence(0.87), champion, minimumAccuracy: 0.5 });
  assert.equal(promote, false);
  assert.deepEqual(
    checks.map(({ passed }) => passed),
    [true, false],
  );
});

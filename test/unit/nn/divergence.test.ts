/** What counts as a training that has gone astray. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { resolveTrainingConfig } from "../../../lib/nn/configuration.ts";
import { checkConvergence, checkLoss, checkTensorsFinite, lossOfGuessing } from "../../../lib/nn/divergence.ts";
import type { NetworkPlan } from "../../../lib/nn/plan.ts";
import { type EpochReport, startTraining, type TrainingRequest } from "../../../lib/nn/training.ts";
import type { TrainingData } from "../../../lib/nn/training-data.ts";
import { assertAllClose } from "./layer-harness.ts";
import { blotData } from "./training-data.ts";

const place = { epoch: 2, step: 7 };
const code = "TRAINING_DIVERGED";

test("weights that are not finite are found, and named, before they get anywhere", () => {
  const tensors = (value: number) => new Map([["head/bias", Float32Array.of(0, value)]]);
  checkTensorsFinite(tensors(1), place);
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
    const expected = { code, message: /head\/bias .* in epoch 2, step 7/ };
    assert.throws(() => checkTensorsFinite(tensors(value), place), expected);
  }
});

test("a loss that is no finite number is an error that says which", () => {
  checkLoss(1, place);
  assert.throws(() => checkLoss(Number.NaN, place), { code, message: /^the loss became NaN in epoch 2, step 7/ });
  const message = /^the validation loss became Infinity/;
  assert.throws(() => checkLoss(Number.POSITIVE_INFINITY, place, "validation loss"), { code, message });
});

test("more than ten times the loss of guessing is an explosion, but not in a training's first steps", () => {
  checkConvergence({ meanLoss: 19.9, guessing: 2, steps: 100 }, place);
  assert.throws(() => checkConvergence({ meanLoss: 20.1, guessing: 2, steps: 100 }, place), { code });
  checkConvergence({ meanLoss: 50, guessing: 2, steps: 9 }, place);
});

test("the loss of guessing is that of equal probabilities, in the weight of the images, with penalties", () => {
  const { trainable, untrained } = {
    trainable: { trainable: true, weights: [{ l2: 0.5, values: Float32Array.of(1, 2) }, { values: [9] }] },
    untrained: { trainable: false, weights: [{ l2: 0.5, values: Float32Array.of(100) }] },
  };
  const plan = { classes: 2, nodes: [trainable, untrained] } as unknown as NetworkPlan;
  const data = { ...blotData({ images: 4 }), classes: ["common", "rare"], labels: Uint16Array.of(0, 0, 0, 1) };
  const images = Uint32Array.of(0, 1, 2, 3);
  const guessing = (classWeights: "none" | "balanced" | number[]) =>
    lossOfGuessing(plan, { data, config: { classWeights }, images });
  assertAllClose([guessing("none")], [Math.log(2) + 2.5], 1e-12, "none");
  assertAllClose([guessing("balanced")], [Math.log(2) + 2.5], 1e-12, "balanced");
  assertAllClose([guessing([1, 9])], [3 * Math.log(2) + 2.5], 1e-12, "a list");
});

/** Two classes of which the second has few images: a batch without one has a loss far below the mean. */
function imbalancedData(images: number, rare: number): TrainingData {
  const data = blotData({ images });
  const labels = new Uint16Array(new SharedArrayBuffer(images * 2));
  // Every fourth has its blot in the same place.
  for (let image = 0; image < rare; image++) labels[4 * image] = 1;
  return { ...data, classes: ["common", "rare"], labels };
}

function request(changes: object, data: TrainingData): TrainingRequest {
  const common = { intraOpThreads: 1, augmentation: { horizontalFlip: "none", translation: 0 } };
  return { network: "small", data, config: resolveTrainingConfig("small", { ...common, ...changes }) };
}

test("rare images that weigh much are no explosion, although some batches have none and others several", async () => {
  const changes = { epochs: 4, batchSize: 50, classWeights: "balanced" };
  const everyStep = { checkpointMs: 0 };
  const { end } = await startTraining({ ...request(changes, imbalancedData(400, 4)), pace: everyStep }).result;
  assert.equal(end, "completed");
});

test("epochs of a single step are judged once there are enough of them", async () => {
  const data = blotData({ images: 40 });
  const { end } = await startTraining(request({ epochs: 14, batchSize: 40 }, data)).result;
  assert.equal(end, "completed");

  const reports: EpochReport[] = [];
  const exploding = { optimizer: { learningRate: 40 }, schedule: { kind: "constant" } };
  const onEpoch = (report: EpochReport): void => void reports.push(report);
  const job = startTraining(request({ epochs: 100, batchSize: 40, ...exploding }, data), { onEpoch });
  await assert.rejects(job.result, { code, message: /mean loss grew to/ });
  assert.ok(reports.length >= 9, `${reports.length} epochs`);
});

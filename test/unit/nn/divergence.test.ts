/** What counts as a training that has gone astray. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeCheckpoint, encodeCheckpoint } from "../../../lib/nn/checkpoint.ts";
import { resolveTrainingConfig } from "../../../lib/nn/configuration.ts";
import {
  checkConvergence,
  checkLoss,
  checkPartOfEpoch,
  checkTensorsFinite,
  lossOfGuessing,
} from "../../../lib/nn/divergence.ts";
import type { EpochSums } from "../../../lib/nn/epochs.ts";
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

test("a part of an epoch explodes only if it has ten steps and its newest is as bad as all of them", () => {
  const part = { meanLoss: 20.1, lastLoss: 20.1, guessing: 2, steps: 10 };
  assert.throws(() => checkPartOfEpoch(part, place), { code, message: /mean loss grew to 20\.1, more than 20\.0/ });
  for (const changes of [{ steps: 9 }, { meanLoss: 19.9 }, { lastLoss: 19.9 }])
    checkPartOfEpoch({ ...part, ...changes }, place);
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
  const assertGuessing = (classWeights: Parameters<typeof guessing>[0], [mean, heaviest]: [number, number]): void => {
    const expected = [mean, heaviest].map((weight) => weight * Math.log(2) + 2.5);
    const loss = guessing(classWeights);
    assertAllClose([loss.mean, loss.heaviest], expected, 1e-12, String(classWeights));
  };
  assertGuessing("none", [1, 1]);
  assertGuessing("balanced", [1, 2]);
  assertGuessing([1, 9], [3, 9]);
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
  const pace = { checkpointMs: 0 };
  // Eight steps an epoch, and forty.
  for (const batches of [{ batchSize: 50 }, { batchSize: 10, optimizer: { learningRate: 0.02 } }]) {
    const changes = { epochs: 4, classWeights: "balanced", ...batches };
    const { end } = await startTraining({ ...request(changes, imbalancedData(400, 4)), pace }).result;
    assert.equal(end, "completed");
  }
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

test("an explosion within an epoch makes no checkpoint", async () => {
  const exploding = { batchSize: 4, optimizer: { learningRate: 40 }, schedule: { kind: "constant" } };
  const sums: EpochSums[] = [];
  const onCheckpoint = (file: Uint8Array): void => void sums.push(decodeCheckpoint(file).sums);
  const long = { ...request(exploding, blotData({ images: 400 })), pace: { checkpointMs: 0 } };
  await assert.rejects(startTraining(long, { onCheckpoint }).result, {
    code,
    message: /mean loss .* epoch 1, step \d\d;/,
  });
  assert.ok(sums.length >= 9);
  const meanLosses = sums.filter(({ steps }) => steps >= 10).map(({ loss, steps }) => loss / steps);
  assert.ok(
    meanLosses.every((loss) => loss <= 10 * Math.log(4)),
    `${meanLosses}`,
  );
});

test("an epoch that time cuts short is judged by its steps, and by its newest", async () => {
  const files: Uint8Array[] = [];
  const order = request({ epochs: 1, batchSize: 4, maxMinutes: 1 }, blotData({ images: 80 }));
  const onCheckpoint = (file: Uint8Array): void => void files.push(file);
  await startTraining({ ...order, pace: { checkpointMs: 0 } }, { onCheckpoint }).result;
  const whole = decodeCheckpoint(files[12] ?? assert.fail("a checkpoint was made after every step"));
  // One step is left: no other begins when the time is over.
  const goOn = ({ factor, steps }: { factor: number; steps: number }) => {
    const kernel = whole.tensors.state.get("head/kernel") ?? assert.fail("the network has a head");
    const state = new Map(whole.tensors.state).set(
      "head/kernel",
      kernel.map((value) => value * factor),
    );
    const sums = { ...whole.sums, steps, loss: 1000 * steps };
    const checkpoint = encodeCheckpoint({ ...whole, sums, elapsedMs: 60_000, tensors: { ...whole.tensors, state } });
    return startTraining({ ...order, checkpoint }).result;
  };
  await assert.rejects(goOn({ factor: 1e4, steps: 13 }), { code, message: /mean loss .* in epoch 1, step 14;/ });
  for (const fine of [
    { factor: 1, steps: 13 },
    { factor: 1e4, steps: 8 },
  ])
    assert.equal((await goOn(fine)).end, "time budget");
});

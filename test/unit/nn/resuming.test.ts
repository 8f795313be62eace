/** Trainings that are interrupted, by any means, against those that are not. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { decodeCheckpoint } from "../../../lib/nn/checkpoint.ts";
import { resolveTrainingConfig } from "../../../lib/nn/configuration.ts";
import { type EpochReport, startTraining, type TrainingRequest } from "../../../lib/nn/training.ts";
import { tempFolder } from "../../helpers/temp-folder.ts";
import { blotData } from "./training-data.ts";

const data = blotData({ images: 128 });
const common = { epochs: 3, batchSize: 32, intraOpThreads: 2, validationShare: 0.25, augmentation: { translation: 1 } };

const trainings: Readonly<Record<string, { network: string; size?: number; overrides: object; keptEpoch: number }>> = {
  // The rate grows beyond what the network can bear, so that the best epoch is the first, before the break.
  "small with a moving average, of which the best epoch is kept": {
    network: "small",
    overrides: {
      ...common,
      keep: "best",
      weightAveraging: { kind: "ema", decay: 0.9 },
      schedule: { kind: "one-cycle", warmUp: 1, initial: 0 },
      optimizer: { learningRate: 5 },
    },
    keptEpoch: 1,
  },
  "paper with dropout, Adam and lookahead": {
    network: "paper",
    overrides: { ...common, weightAveraging: { kind: "lookahead", every: 2 } },
    keptEpoch: 3,
  },
  // Nine steps: lookahead moves once before the break and once after it, and one step is left over.
  "speedrun with whitening, alternating mirroring and lookahead": {
    network: "speedrun",
    size: 16,
    overrides: { ...common, augmentation: { horizontalFlip: "alternating" }, weightAveraging: { every: 4 } },
    keptEpoch: 3,
  },
};

for (const [name, { network, size = 8, overrides, keptEpoch }] of Object.entries(trainings)) {
  test(`a training of ${name}, killed in the middle of an epoch, ends with the same bits as one without a break`, async (t) => {
    const file = join(await tempFolder(t), "checkpoint.bin");
    const program = fileURLToPath(new URL("./killed-training.ts", import.meta.url));
    const args = ["--import", "tsx", program, network, JSON.stringify(overrides), `${size}`, file, "1", "2"];
    const [, signal] = await once(spawn(process.execPath, args, { stdio: "inherit" }), "exit");
    assert.equal(signal, "SIGKILL");

    const checkpoint = await readFile(file);
    const { epochs, sums, step } = decodeCheckpoint(checkpoint);
    assert.deepEqual([epochs.length, sums.steps, step], [1, 2, 5]);
    const data = blotData({ images: 128, size });
    const request: TrainingRequest = { network, data, config: resolveTrainingConfig(network, overrides) };
    const [whole, resumed] = [
      await startTraining(request).result,
      await startTraining({ ...request, checkpoint }).result,
    ];
    assert.deepEqual(resumed.onnx, whole.onnx);
    assert.deepEqual(resumed.layersModel, whole.layersModel);
    assert.deepEqual(resumed.epochs.map(withoutTimes), whole.epochs.map(withoutTimes));
    assert.deepEqual([resumed.keptEpoch, whole.keptEpoch], [keptEpoch, keptEpoch]);
  });
}

test("a training that was killed after its last epoch only packs its model", async () => {
  const checkpoints: Uint8Array[] = [];
  const request = { network: "small", data, config: resolveTrainingConfig("small", { ...common, epochs: 1 }) };
  const whole = await startTraining(request, { onCheckpoint: (bytes) => checkpoints.push(bytes) }).result;
  const [checkpoint = new Uint8Array()] = checkpoints;
  const reports: EpochReport[] = [];
  const resumed = await startTraining({ ...request, checkpoint }, { onEpoch: (report) => reports.push(report) }).result;
  assert.deepEqual(reports, []);
  assert.deepEqual(resumed, whole);
});

test("a limit of time counts what was trained before a break", async () => {
  const checkpoints: Uint8Array[] = [];
  const overrides = { ...common, epochs: 1000, maxMinutes: 0.02, schedule: { kind: "one-cycle" } };
  const request = { network: "small", data, config: resolveTrainingConfig("small", overrides) };
  const whole = await startTraining(request, { onCheckpoint: (bytes) => checkpoints.push(bytes) }).result;
  const last = checkpoints.at(-1) ?? assert.fail("a checkpoint was made");
  assert.ok(decodeCheckpoint(last).elapsedMs >= 0.02 * 60_000);
  const resumed = await startTraining({ ...request, checkpoint: last }).result;
  assert.equal(resumed.end, "time budget");
  assert.deepEqual(resumed.onnx, whole.onnx);
});

function withoutTimes({ durationMs, remainingMs, imagesPerSecond, validationMs, ...report }: EpochReport): object {
  assert.ok(durationMs > 0 && remainingMs >= 0 && imagesPerSecond > 0);
  assert.equal((validationMs ?? 0) > 0, report.validationLoss !== undefined);
  return report;
}

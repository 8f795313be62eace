/** Training jobs from start to end: learning, reproducing, resuming, cancelling, failing. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../../lib/errors.ts";
import {
  type Checkpoint,
  type CheckpointTensors,
  decodeCheckpoint,
  encodeCheckpoint,
} from "../../../lib/nn/checkpoint.ts";
import { createInferenceWorker } from "../../../lib/nn/inference.ts";
import { evaluatePredictions } from "../../../lib/nn/metrics.ts";
import { predictWithLayersModel } from "../../../lib/nn/parity.ts";
import { core } from "../../../lib/nn/tensorflow.ts";
import { train } from "../../../lib/nn/trainer.ts";
import { type EpochReport, startTraining, type TrainingProgress } from "../../../lib/nn/training.ts";
import { assertRejects } from "./app-errors.ts";
import { assertAllClose } from "./layer-harness.ts";
import { blotData, shortData as data, shortTraining } from "./training-data.ts";

test("a trained model classifies images it has not seen, through ONNX as through TensorFlow.js", async () => {
  const reports: EpochReport[] = [];
  const { result } = startTraining(shortTraining("small", { epochs: 12 }), {
    onEpoch: (report) => reports.push(report),
  });
  const { onnx, layersModel, epochs, config, parameterCount, forwardFlopsPerImage } = await result;
  assert.deepEqual(reports, epochs);
  assert.deepEqual(
    reports.map(({ epoch }) => epoch),
    Array.from({ length: 12 }, (_, index) => index + 1),
  );
  assert.ok((epochs.at(-1)?.loss ?? 9) < (epochs[0]?.loss ?? 0), "the loss falls");
  assert.equal(config.epochs, 12);
  assert.ok(parameterCount > 1000 && forwardFlopsPerImage > 1000);

  const test = blotData({ images: 40, seed: 99 });
  await using worker = await createInferenceWorker({ onnx, intraOpThreads: 1 });
  assert.deepEqual(worker.description.classes, data.classes);
  const { probabilities } = await worker.run(test.pixels, 40);
  const { accuracy } = evaluatePredictions({ probabilities, labels: test.labels, classes: test.classes });
  assert.ok(accuracy > 0.9, `accuracy ${accuracy}`);
  const expected = await predictWithLayersModel(layersModel, {
    pixels: test.pixels.slice(0, 8 * 192),
    count: 8,
    normalization: data,
    mirrored: false,
  });
  assertAllClose(probabilities.subarray(0, 8 * 4), expected, 1e-5, "probabilities");
});

test("the paper's network with its dropout learns too", async () => {
  const changes = { epochs: 2, intraOpThreads: 1 };
  const { epochs } = await startTraining(shortTraining("paper", changes)).result;
  assert.ok((epochs[1]?.loss ?? 9) < (epochs[0]?.loss ?? 0), `losses ${epochs.map(({ loss }) => loss)}`);
});

test("the same seed gives the same model bit for bit, another seed another", async () => {
  const trainOnce = async (seed: number) =>
    (await startTraining(shortTraining("small", { seed, epochs: 2 })).result).onnx;
  const [first, second, other] = [await trainOnce(1), await trainOnce(1), await trainOnce(2)];
  assert.deepEqual(first, second);
  assert.notDeepEqual(first, other);
});

for (const network of ["small", "paper"]) {
  test(`a training of ${network} resumed from a checkpoint ends with the same bits as one without a break`, async () => {
    const checkpoints: Uint8Array[] = [];
    const request = shortTraining(network, { epochs: 3 });
    const whole = await startTraining(request, { onCheckpoint: (bytes) => checkpoints.push(bytes) }).result;
    assert.equal(checkpoints.length, 3);
    const [, checkpoint = new Uint8Array()] = checkpoints;
    const resumed = await startTraining({ ...request, checkpoint }).result;
    assert.deepEqual(resumed.onnx, whole.onnx);
    assert.deepEqual(resumed.layersModel.weights, whole.layersModel.weights);
    assert.deepEqual(
      resumed.epochs.map(({ loss }) => loss),
      whole.epochs.map(({ loss }) => loss),
    );
  });
}

test("a checkpoint of another training is refused, and so is a damaged one", async () => {
  const checkpoints: Uint8Array[] = [];
  await startTraining(shortTraining("small", { epochs: 1 }), { onCheckpoint: (bytes) => checkpoints.push(bytes) })
    .result;
  const [checkpoint = new Uint8Array()] = checkpoints;
  const other = startTraining({ ...shortTraining("small", { epochs: 2 }), checkpoint });
  await assertRejects(other.result, "CONFIGURATION_INVALID", /another training: its config/);
  const truncated = startTraining({ ...shortTraining("small", { epochs: 1 }), checkpoint: checkpoint.slice(0, -4) });
  await assertRejects(truncated.result, "ARTIFACT_CORRUPT", /bytes/);
  const { config, ...rest } = decodeCheckpoint(checkpoint);
  const older = encodeCheckpoint({ ...rest, config: { ...config, dropped: 1 } as typeof config });
  const message = /^this is no usable checkpoint: its configuration is of another version; train without it/;
  assert.throws(() => decodeCheckpoint(older), { code: "ARTIFACT_CORRUPT", message });
});

test("a checkpoint whose tensors are not those of the network is refused, whichever they are", async () => {
  const changes = { epochs: 1, validationShare: 0.25, keep: "best", weightAveraging: { kind: "ema" } };
  const checkpoints: Uint8Array[] = [];
  await startTraining(shortTraining("small", changes), { onCheckpoint: (bytes) => checkpoints.push(bytes) }).result;
  const whole = decodeCheckpoint(checkpoints[0] ?? new Uint8Array());
  const before = core.memory().numTensors;
  const resume = (tensors: CheckpointTensors) => {
    const checkpoint = encodeCheckpoint({ ...whole, tensors });
    return train({ ...shortTraining("small", changes), checkpoint }, {}, () => false);
  };
  for (const group of ["state", "average", "best"] as const) {
    const [name = "", values = new Float32Array()] = [...whole.tensors[group]][0] ?? [];
    const changed = (change: (tensors: Map<string, Float32Array>) => unknown) => {
      const tensors = new Map(whole.tensors[group]);
      change(tensors);
      return resume({ ...whole.tensors, [group]: tensors });
    };
    const code = "ARTIFACT_CORRUPT";
    await assertRejects(
      changed((tensors) => tensors.delete(name)),
      code,
      /no tensor/,
    );
    await assertRejects(
      changed((tensors) => tensors.set(name, values.subarray(1))),
      code,
      /no tensor/,
    );
    await assertRejects(
      changed((tensors) => tensors.set("removed/kernel", values)),
      code,
      /has a tensor removed/,
    );
    await assertRejects(
      changed((tensors) => tensors.clear()),
      code,
      /no tensor/,
    );
  }
  assert.equal((await resume(whole.tensors)).end, "completed");
  assert.equal(core.memory().numTensors, before, "no network is left behind");
});

test("cancelling rejects the result, ends the thread and silences the listeners", async () => {
  let calls = 0;
  let started: () => void = () => {};
  const running = new Promise<void>((resolve) => {
    started = resolve;
  });
  const listen = (): void => {
    calls++;
    started();
  };
  const job = startTraining(shortTraining("paper", { epochs: 1000 }), { onEpoch: listen, onProgress: listen });
  const rejected = assertRejects(job.result, "CANCELLED", /cancelled/);
  await running;
  await job.cancel();
  await rejected;
  const atTheEnd = calls;
  await job.cancel();
  assert.equal(calls, atTheEnd);
});

test("a training cancelled before it has begun ends as well", async () => {
  const job = startTraining(shortTraining("small"));
  const rejected = assertRejects(job.result, "CANCELLED", /cancelled/);
  await job.cancel();
  await rejected;
});

test("progress is told after every step where it is not held back, and counts the steps of the epoch", async () => {
  const seen: TrainingProgress[] = [];
  const request = { ...shortTraining("small", { epochs: 2, batchSize: 8 }), pace: { progressMs: 0 } };
  await startTraining(request, { onProgress: (progress) => seen.push(progress) }).result;
  const expected = [1, 2].flatMap((epoch) => Array.from({ length: 16 }, (_, index) => [epoch, index + 1, 16]));
  assert.deepEqual(
    seen.map(({ epoch, step, steps }) => [epoch, step, steps]),
    expected,
  );
  assert.ok(seen.every(({ loss, imagesPerSecond }) => Number.isFinite(loss) && imagesPerSecond > 0));
});

test("within an epoch a checkpoint is made as often as checkpointMinutes says", async () => {
  // More images than can be trained on before the second checkpoint: nothing but the clock decides.
  const { network, config } = shortTraining("small", { batchSize: 1, checkpointMinutes: 0.01, epochs: 1 });
  const checkpoints: Checkpoint[] = [];
  const onCheckpoint = (bytes: Uint8Array): void => {
    checkpoints.push(decodeCheckpoint(bytes));
    if (checkpoints.length === 2) throw new AppError("CANCELLED", "two are enough");
  };
  const job = startTraining({ network, config, data: blotData({ images: 16_384 }) }, { onCheckpoint });
  await assertRejects(job.result, "CANCELLED", /two are enough/);
  await job.cancel();
  const [before, after] = checkpoints;
  assert.ok(before && after, `${checkpoints.length} checkpoints`);
  assert.deepEqual([before.epochs.length, after.epochs.length], [0, 0]);
  assert.ok(before.elapsedMs >= 600 && after.elapsedMs - before.elapsedMs >= 600);
});

test("a loss that is no number any more stops the training and names the epoch and step", async () => {
  const optimizer = { kind: "sgd", learningRate: 1e30, momentum: 0.9 };
  const job = startTraining(shortTraining("small", { optimizer, schedule: { kind: "constant" } }));
  await assertRejects(job.result, "TRAINING_DIVERGED", /epoch 1, step \d+/);
});

test("a loss that explodes stops the training, and no checkpoint is made of it", async () => {
  // The rate rises until the loss does.
  const changes = {
    epochs: 12,
    schedule: { kind: "one-cycle", warmUp: 1, initial: 0 },
    optimizer: { learningRate: 12 },
  };
  const checkpoints: Uint8Array[] = [];
  const request = shortTraining("small", changes);
  const job = startTraining(request, { onCheckpoint: (bytes) => checkpoints.push(bytes) });
  await assertRejects(job.result, "TRAINING_DIVERGED", /mean loss grew to .* smaller learning rate/);
  assert.ok(checkpoints.length > 0, "it went well for some epochs");
  const { epochs, tensors } = decodeCheckpoint(checkpoints.at(-1) ?? new Uint8Array());
  assert.equal(epochs.length, checkpoints.length);
  assert.ok(epochs.every(({ loss }) => loss < 10 * Math.log(4)));
  assert.ok([...tensors.state.values()].every((values) => values.every(Number.isFinite)));
});

test("a listener that throws ends the training with its error", async () => {
  const job = startTraining(shortTraining("small", { epochs: 1000 }), {
    onEpoch: () => {
      throw new AppError("STREAM_FULL", "no room for the event");
    },
  });
  await assertRejects(job.result, "STREAM_FULL", /no room/);
});

test("the loop can run on the calling thread, where it stops when it is told to", async () => {
  let steps = 0;
  await assertRejects(
    train(shortTraining("small"), {}, () => ++steps > 2),
    "CANCELLED",
    /the training was cancelled/,
  );
});

/** The training stage between a real broker and a real artifact store: what a run hears of its training, however that goes. */
import assert from "node:assert/strict";
import { after, before, suite, test } from "node:test";
import { create, fromJsonString, type JsonObject, type Message } from "@bufbuild/protobuf";
import { type Dataset, DatasetSpecSchema } from "../../gen/millrace/v1/dataset_pb.ts";
import {
  DatasetPreparedSchema,
  type ModelTrained,
  RunCancelledSchema,
  type RunFailed,
  type TrainingCheckpointed,
  TrainingCheckpointedSchema,
  type TrainingEpochCompleted,
  TrainingEpochCompletedSchema,
  type TrainingProgressed,
  type TrainingStarted,
} from "../../gen/millrace/v1/events_pb.ts";
import { type ModelManifest, ModelManifestSchema } from "../../gen/millrace/v1/model_pb.ts";
import { TrainingEnd } from "../../gen/millrace/v1/training_pb.ts";
import { openFolderStore } from "../../lib/artifacts/folder-store.ts";
import { readBytes } from "../../lib/artifacts/read.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import { startStage } from "../../lib/bus/stage.ts";
import { eventStream, eventSubject } from "../../lib/bus/subjects.ts";
import { prepareDataset } from "../../lib/images/prepare-dataset.ts";
import { decodeCheckpoint, encodeCheckpoint } from "../../lib/nn/checkpoint.ts";
import { createRegistry } from "../../lib/registry/registry.ts";
import { lastCheckpoint } from "../../services/training/checkpoints.ts";
import { createTraining, trainingStage } from "../../services/training/handlers.ts";
import { eventually, openTestBus, storedEvents } from "../helpers/bus.ts";
import { startNats } from "../helpers/nats-server.ts";
import { createStack } from "../helpers/stack.ts";
import { tempFolder } from "../helpers/temp-folder.ts";

const stack = createStack();
let bus: Bus;
let artifacts: ArtifactStore;
let dataset: Dataset;
let tinyDataset: Dataset;

before(async () => {
  bus = await openTestBus(await startNats(stack), { service: "training" });
  artifacts = await openFolderStore(await tempFolder(stack));
  const signal = new AbortController().signal;
  const spec = { source: "pictograms", limitPerClass: 20 };
  const dependencies = { artifacts, cacheFolder: await tempFolder(stack), signal, onProgress: () => undefined };
  dataset = await prepareDataset(create(DatasetSpecSchema, spec), dependencies);
  tinyDataset = await prepareDataset(create(DatasetSpecSchema, { ...spec, imageSize: 4 }), dependencies);
});

after(async () => {
  await bus[Symbol.asyncDispose]();
  await artifacts[Symbol.asyncDispose]();
  await stack.dispose();
});

/** Gives a run to the training stage, as ingestion does. */
async function requestTraining(runId: string, hyperparameters: JsonObject, prepared = dataset) {
  const training = { network: "small", hyperparameters: { batchSize: 50, intraOpThreads: 1, ...hyperparameters } };
  const spec = { training, modelName: runId };
  return bus.publish(create(DatasetPreparedSchema, { dataset: prepared, spec }), { runId });
}

/** Progress and checkpoints come after every step, so that no test depends on how fast steps are. */
function startTrainingStage(store = artifacts): ReturnType<typeof startStage> {
  const pace = { progressMs: 0, checkpointMs: 0 };
  const training = createTraining({ artifacts: store, registry: createRegistry(bus), engine: "onnxruntime", pace });
  return startStage(bus, trainingStage(training, bus));
}

async function messages<T extends Message>(runId: string, name: string): Promise<T[]> {
  return (await storedEvents(bus, eventSubject(runId, name))).map(({ message }) => message as T);
}

/** The first event of a kind, waited for. */
async function first<T extends Message>(runId: string, name: string): Promise<T> {
  return eventually(`${name} of ${runId}`, async () => (await messages<T>(runId, name))[0], deadlineMs);
}

/** Whether the stage has nothing left to do. */
async function isSettled(): Promise<boolean> {
  const { num_pending, num_ack_pending } = await bus.jsm.consumers.info(eventStream, "training");
  return num_pending === 0 && num_ack_pending === 0;
}

async function manifestOf({ model }: ModelTrained): Promise<ModelManifest> {
  const bytes = await readBytes(artifacts, model?.manifest?.digest ?? "");
  return fromJsonString(ModelManifestSchema, new TextDecoder().decode(bytes));
}

const deadlineMs = 240_000;

suite("the training stage", () => {
  test("tells of steps, epochs with their validation, and how the training ended, with its curves", async () => {
    await requestTraining("whole", { epochs: 2, validationShare: 0.2 });
    const stage = startTrainingStage();
    const trained = await first<ModelTrained>("whole", "model.trained");
    await stage.stop();
    const epochs = await messages<TrainingEpochCompleted>("whole", "training.epoch_completed");
    assert.deepEqual(
      epochs.map(({ metrics }) => metrics?.epoch),
      [1, 2],
    );
    for (const { metrics } of epochs) {
      assert.ok(metrics?.validationAccuracy !== undefined && metrics.validationLoss !== undefined);
      assert.ok(metrics.learningRate > 0 && metrics.imagesPerSecond > 0 && metrics.loss > 0 && metrics.accuracy > 0);
    }
    const secondsLeft = epochs.map(({ metrics }) => metrics?.remainingSeconds);
    assert.deepEqual([(secondsLeft[0] ?? 0) > 0, secondsLeft[1]], [true, 0]);
    const [progress] = await messages<TrainingProgressed>("whole", "training.progressed");
    assert.equal(progress?.progress?.steps, 3);
    assert.deepEqual(
      [trained.summary?.end, trained.summary?.epochs, trained.summary?.keptEpoch],
      [TrainingEnd.COMPLETED, 2, 2],
    );
    const { trainingCurves } = await manifestOf(trained);
    assert.deepEqual(trainingCurves, trained.summary?.curves);
    assert.equal(trainingCurves?.mediaType, "image/svg+xml");
    const svg = new TextDecoder().decode(await readBytes(artifacts, trainingCurves?.digest ?? ""));
    assert.match(svg, /^<svg .*Training of small on/s);
  });

  test("goes on within an epoch after it was stopped there, and ends with the same weights as without", async () => {
    const hyperparameters = { epochs: 6 };
    await requestTraining("broken", hyperparameters);
    let stage = startTrainingStage();
    await first<TrainingCheckpointed>("broken", "training.checkpointed");
    await stage.stop();
    assert.deepEqual(await messages("broken", "model.trained"), []);
    await requestTraining("unbroken", hyperparameters);
    stage = startTrainingStage();
    const [broken, unbroken] = await Promise.all(
      ["broken", "unbroken"].map(async (runId) => manifestOf(await first<ModelTrained>(runId, "model.trained"))),
    );
    await stage.stop();
    assert.equal(broken?.onnx?.digest, unbroken?.onnx?.digest);
    const starts = await messages<TrainingStarted>("broken", "training.started");
    assert.equal(starts.length, 2);
    assert.ok((starts[1]?.resumedEpochs ?? 0) + (starts[1]?.resumedSteps ?? 0) > 0, "it did not begin anew");
    const epochs = await messages<TrainingEpochCompleted>("broken", "training.epoch_completed");
    assert.deepEqual(
      epochs.map(({ metrics }) => metrics?.epoch),
      [1, 2, 3, 4, 5, 6],
    );
  });

  test("goes on from the newest checkpoint, be it after an epoch or within one, and from none of another message", async () => {
    const cause = { id: "cause-1", originTraceparent: "" };
    const checkpointed = (name: string) => create(TrainingCheckpointedSchema, { checkpoint: { name } });
    const completed = (name: string) => create(TrainingEpochCompletedSchema, { checkpoint: { name } });
    const newest = async () => {
      const event = { ...cause, correlationId: "newest" } as Parameters<typeof lastCheckpoint>[1];
      return (await lastCheckpoint(bus, event))?.name;
    };
    assert.equal(await newest(), undefined);
    for (const [key, message] of [checkpointed("a"), completed("b"), checkpointed("c")].entries()) {
      await bus.publish(message, { runId: "newest", cause, key: String(key) });
      assert.equal(await newest(), message.checkpoint?.name);
    }
    await bus.publish(checkpointed("d"), { runId: "newest", cause: { ...cause, id: "cause-2" } });
    assert.equal(await newest(), "b", "the newest within an epoch is another message's");
  });

  test("begins anew where the newest checkpoint is of a network that was built otherwise", async () => {
    const { id } = await requestTraining("rebuilt", { epochs: 2 });
    let stage = startTrainingStage();
    const { checkpoint } = await first<TrainingCheckpointed>("rebuilt", "training.checkpointed");
    await stage.stop();
    const { tensors, ...rest } = decodeCheckpoint(await readBytes(artifacts, checkpoint?.digest ?? ""));
    const state = new Map(tensors.state).set("removed/kernel", new Float32Array(4));
    const bytes = encodeCheckpoint({ ...rest, tensors: { ...tensors, state } });
    const unfit = await artifacts.put(bytes, { mediaType: "application/octet-stream", name: "unfit.bin" });
    const message = create(TrainingCheckpointedSchema, { epochs: 0, steps: rest.step, checkpoint: unfit });
    await bus.publish(message, { runId: "rebuilt", cause: { id, originTraceparent: "" }, key: "unfit" });
    stage = startTrainingStage();
    const { summary } = await first<ModelTrained>("rebuilt", "model.trained");
    await stage.stop();
    assert.equal(summary?.epochs, 2);
    const starts = await messages<TrainingStarted>("rebuilt", "training.started");
    assert.deepEqual(
      starts.map(({ resumedEpochs, resumedSteps }) => resumedEpochs + resumedSteps > 0),
      [false, true, false],
    );
  });

  test("fails a run whose loss explodes, and leaves the last good checkpoint to be looked at", async () => {
    // The rate rises until the loss does.
    const schedule = { kind: "one-cycle", warmUp: 1, initial: 0 };
    await requestTraining("diverging", { epochs: 20, schedule, optimizer: { learningRate: 30 } });
    const stage = startTrainingStage();
    const { code, message, attempts } = await first<RunFailed>("diverging", "run.failed");
    await stage.stop();
    assert.deepEqual([code, attempts], ["TRAINING_DIVERGED", 1]);
    const last = (await messages<TrainingEpochCompleted>("diverging", "training.epoch_completed")).at(-1);
    assert.ok(last?.checkpoint, "it went well for some epochs");
    assert.match(message, /in epoch \d+, step \d+; train with a smaller learning rate/);
    const { epochs } = decodeCheckpoint(await readBytes(artifacts, last.checkpoint.digest));
    assert.equal(epochs.length, last.metrics?.epoch);
  });

  test("fails a run at its first try, before it begins or reads an image, where the manifest shows that it cannot be", async () => {
    const [configuration, images] = ["CONFIGURATION_INVALID", "DATASET_INVALID"];
    const impossible: [string, string, JsonObject, RegExp][] = [
      ["large-batch", configuration, { batchSize: 10_000 }, /batchSize 10000 is more than the 200 images/],
      ["small-share", configuration, { validationShare: 0.01 }, /validationShare 0.01 of the 20 images of class/],
      ["few-weights", configuration, { classWeights: [1, 2] }, /classWeights has 2 numbers, there are 10 classes/],
      ["large-cutout", configuration, { augmentation: { cutout: 33 } }, /cutout 33 .* images of 32x32 allow/],
      ["far-translation", configuration, { augmentation: { translation: 32 } }, /translation 32 .* set at most 31/],
      ["tiny-images", images, {}, /images of 4x4 are too small for network small: its layer pool4/],
    ];
    for (const [runId, code, hyperparameters] of impossible) {
      await requestTraining(runId, hyperparameters, code === images ? tinyDataset : dataset);
    }
    const read = new Set<string>();
    const stage = startTrainingStage({
      ...artifacts,
      get(digest, options) {
        read.add(digest);
        return artifacts.get(digest, options);
      },
    });
    for (const [runId, expectedCode, , expected] of impossible) {
      const { code, message, attempts } = await first<RunFailed>(runId, "run.failed");
      assert.deepEqual([code, attempts], [expectedCode, 1]);
      assert.match(message, expected);
      assert.deepEqual(await messages(runId, "training.started"), []);
    }
    await stage.stop();
    assert.deepEqual(read, new Set([dataset.digest, tinyDataset.digest]));
  });

  test("gives up a cancelled run within two seconds, while a step is under way, and takes the next", async () => {
    await requestTraining("cancelled", { epochs: 1000 });
    const stage = startTrainingStage();
    await first<TrainingEpochCompleted>("cancelled", "training.epoch_completed");
    const cancelledMs = performance.now();
    await bus.publish(create(RunCancelledSchema), { runId: "cancelled" });
    await eventually("the message is settled", isSettled);
    const settledMs = performance.now() - cancelledMs;
    assert.ok(settledMs < 2_000, `settled after ${settledMs} ms`);
    await requestTraining("next", { epochs: 1 });
    await first<ModelTrained>("next", "model.trained");
    await stage.stop();
    assert.deepEqual(await messages("cancelled", "model.trained"), []);
    assert.deepEqual(await messages("cancelled", "run.failed"), []);
  });
});

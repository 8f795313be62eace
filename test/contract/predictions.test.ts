/** What the prediction service tells of its answers: events on a real broker, feedback, drift, and kept images. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import type { PredictionCompleted, PredictionDrift, PredictionFeedback } from "../../gen/millrace/v1/events_pb.ts";
import { SendFeedbackRequestSchema } from "../../gen/millrace/v1/prediction_pb.ts";
import { openFolderStore } from "../../lib/artifacts/folder-store.ts";
import { readBytes } from "../../lib/artifacts/read.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import { predictionStream, predictionSubject } from "../../lib/bus/subjects.ts";
import { type AnswerLogOptions, createAnswerLog } from "../../services/prediction/answer-log.ts";
import { withModel } from "../../services/prediction/answering.ts";
import { createFeedback } from "../../services/prediction/feedback.ts";
import { eventually, openTestBus, storedEvents } from "../helpers/bus.ts";
import { startNats } from "../helpers/nats-server.ts";
import { startServing, type TestServing } from "../helpers/served-model.ts";
import { createStack } from "../helpers/stack.ts";
import { tempFolder } from "../helpers/temp-folder.ts";

const batching = { maxBatchSize: 8, maxDelayMs: 0, maxQueueLength: 2_000, maxWaitMs: 60_000 };
const never = new AbortController().signal;
const image = (value: number): Uint8Array => new Uint8Array(16 * 16 * 3).fill(value);

interface Logged extends AsyncDisposable {
  readonly bus: Bus;
  readonly artifacts: ArtifactStore;
  readonly serving: TestServing;
  /** Classifies an image of one colour; the id of the answer. */
  classify(value: number): Promise<string>;
  events<M>(name: string): Promise<M[]>;
}

/** A model with a log of its answers; disposing of it publishes what is left. */
async function startLogged(t: TestContext, options: Partial<AnswerLogOptions>): Promise<Logged> {
  const stack = createStack();
  t.after(() => stack.dispose());
  const nats = await startNats(t);
  const bus = await openTestBus(nats);
  t.after(() => bus[Symbol.asyncDispose]());
  const folder = await tempFolder(t);
  const artifacts = await openFolderStore(folder);
  t.after(() => artifacts[Symbol.asyncDispose]());
  const serving = await startServing(folder, { batching, versions: 2, aliases: { shadow: 2 }, shares: { shadow: 1 } });
  stack.after(() => serving[Symbol.asyncDispose]());
  const defaults = { bus, artifacts, instanceId: "i1", intervalMs: 60_000, imageShare: 0, driftWindow: 0 };
  const answers = createAnswerLog({ ...defaults, ...options });
  stack.after(() => answers[Symbol.asyncDispose]());
  return {
    bus,
    artifacts,
    serving,
    classify: (value) =>
      withModel({ ...serving, answers }, {}, async (model) => {
        const { output } = await model.classify(() => Promise.resolve(image(value)));
        return output.predictionId;
      }),
    events: async <M>(name: string) => {
      const stored = await storedEvents(bus, predictionSubject("test", name), predictionStream);
      return stored.map(({ message }) => message as unknown as M);
    },
    [Symbol.asyncDispose]: () => stack.dispose(),
  };
}

test("answers are told in few events, each answer once, with the shadow's comparison", async (t) => {
  const logged = await startLogged(t, {});
  const ids = await Promise.all(Array.from({ length: 1_100 }, (_, index) => logged.classify(index % 256)));
  await logged[Symbol.asyncDispose]();
  const events = await logged.events<PredictionCompleted>("prediction.completed");
  const told = events.flatMap(({ predictions }) => predictions);
  assert.deepEqual(told.map(({ predictionId }) => predictionId).toSorted(), ids.toSorted());
  assert.ok(events.length >= 3 && events.length <= 5, `${events.length} events`);
  assert.ok(events.every(({ version, instanceId, images }) => version === 1 && instanceId === "i1" && !images));
  assert.ok(told.every(({ probability }) => probability > 1 / 3 && probability <= 1));
  const sum = (of: "compared" | "agreed" | "failed") =>
    events.reduce((all, { shadow }) => all + (shadow?.[of] ?? 0), 0);
  assert.equal(sum("compared") + sum("failed"), ids.length);
  assert.ok(sum("compared") > 0 && sum("agreed") <= sum("compared"));
});

test("answers wait no longer for others than the interval", async (t) => {
  await using logged = await startLogged(t, { intervalMs: 50 });
  const id = await logged.classify(3);
  const [event] = await eventually("the event is there", async () => {
    const events = await logged.events<PredictionCompleted>("prediction.completed");
    return events.length > 0 && events;
  });
  assert.equal(event?.predictions[0]?.predictionId, id);
});

test("images are kept only if it is asked for, in the order of their answers", async (t) => {
  const logged = await startLogged(t, { imageShare: 1 });
  for (const value of [10, 20, 30]) await logged.classify(value);
  await logged[Symbol.asyncDispose]();
  const [event] = await logged.events<PredictionCompleted>("prediction.completed");
  assert.ok(event?.images);
  const bytes = await readBytes(logged.artifacts, event.images.digest);
  assert.deepEqual(Buffer.from(bytes), Buffer.concat([image(10), image(20), image(30)]));
  assert.ok(event.predictions.every(({ imageKept }) => imageKept));
});

test("while the broker is away answers are given, and those that could not be told are counted", async (t) => {
  const nats = await startNats(t);
  await using bus = await openTestBus(nats, { publishTimeoutMs: 200 });
  await using reader = await openTestBus(nats);
  const folder = await tempFolder(t);
  await using serving = await startServing(folder, { batching });
  await using artifacts = await openFolderStore(folder);
  const options = { bus, artifacts, instanceId: "i1", intervalMs: 20, imageShare: 0, driftWindow: 0 };
  const answers = createAnswerLog(options);
  let given = 0;
  const classify = async () => {
    await withModel({ ...serving, answers }, {}, (model) => model.classify(() => Promise.resolve(image(1))));
    given++;
  };
  const events = async () => {
    const stored = await storedEvents(reader, predictionSubject("test", "prediction.completed"), predictionStream);
    return stored.map(({ message }) => message as unknown as PredictionCompleted);
  };
  await nats.stop();
  // One after another, so that the first is given up on before the last is given.
  for (const end = Date.now() + 1_000; Date.now() < end; ) await classify();
  await nats.restart();
  await eventually("something is told again", async () => {
    await classify();
    return (await events()).length > 0;
  });
  await answers[Symbol.asyncDispose]();
  const stored = await events();
  const lost = stored.reduce((sum, { lostPredictions }) => sum + Number(lostPredictions), 0);
  const told = stored.reduce((sum, { predictions }) => sum + predictions.length, 0);
  assert.equal(told + lost, given);
  assert.ok(lost > 0, "some were given up on");
});

test("feedback is stored once, says whether the answer was right, and refuses what cannot be", async (t) => {
  await using logged = await startLogged(t, {});
  const { bus, artifacts, serving } = logged;
  const feedback = createFeedback({ bus, artifacts, deployment: serving.deployment });
  const send = (predictionId: string, label: string) =>
    feedback.send(create(SendFeedbackRequestSchema, { predictionId, label }), never);
  const id = await logged.classify(7);
  const answered = Number(id.split("-")[1]);
  const classes = ["cat", "dog", "fox"];
  assert.deepEqual(await send(id, classes[answered] ?? ""), { correct: true });
  assert.deepEqual(await send(id, classes[answered] ?? ""), { correct: true });
  assert.deepEqual(await send(id, classes[(answered + 1) % 3] ?? ""), { correct: false });
  const stored = await logged.events<PredictionFeedback>("prediction.feedback");
  assert.deepEqual(
    stored.map(({ predictionId, predictedClassIndex, correct }) => [predictionId, predictedClassIndex, correct]),
    [
      [id, answered, true],
      [id, answered, false],
    ],
  );
  await assert.rejects(send(id, "horse"), { code: "INVALID_REQUEST", message: /cat, dog, fox/ });
  await assert.rejects(send("nonsense", "cat"), { code: "INVALID_REQUEST", message: /prediction_id/ });
  const noClass = id.replace(/^1-\d+/, "1-3");
  await assert.rejects(send(noClass, "cat"), { code: "INVALID_REQUEST", message: /has 3 classes/ });
  await assert.rejects(send(id.replace(/^1/, "9"), "cat"), { code: "MODEL_NOT_FOUND" });
});

test("images that are darker than the data set's are told as drift, with the evidence", async (t) => {
  const logged = await startLogged(t, { driftWindow: 20 });
  for (let count = 0; count < 20; count++) await logged.classify(127);
  for (let count = 0; count < 20; count++) await logged.classify(10);
  await logged[Symbol.asyncDispose]();
  const events = await logged.events<PredictionDrift>("prediction.drift");
  assert.equal(events.length, 1, "the first 20 were like the data set");
  const [event] = events;
  assert.equal(event?.predictions, 20);
  assert.ok(event?.measures.every(({ drifted, actual }) => drifted && Math.abs((actual[0] ?? 0) - 10 / 255) < 1e-6));
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type Message } from "@bufbuild/protobuf";
import {
  DatasetPreparedSchema,
  DatasetStartedSchema,
  ModelDeployedSchema,
  ModelDeploymentFailedSchema,
  ModelPromotedSchema,
  ModelRejectedSchema,
  ModelTrainedSchema,
  RunCancelledSchema,
  RunFailedSchema,
  RunRequestedSchema,
  TrainingEpochCompletedSchema,
} from "../../../gen/millrace/v1/events_pb.ts";
import { type Run, RunStatus } from "../../../gen/millrace/v1/pipeline_pb.ts";
import type { ReceivedEvent } from "../../../lib/bus/cloud-event.ts";
import { eventTypes } from "../../../lib/bus/event-types.ts";
import { applyRunEvent, emptyRun, hasEnded, runEventFrom } from "../../../services/pipeline/run-projection.ts";

const traceId = "0af7651916cd43dd8448eb211c80319c";

function received(message: Message, source: string, second: number): ReceivedEvent {
  return {
    id: `id-${second}`,
    source,
    type: message.$typeName,
    time: new Date(second * 1000),
    correlationId: "run-1",
    causationId: "",
    originTraceparent: `00-${traceId}-b7ad6b7169203331-01`,
    message,
    subject: "millrace.v1.run-1.any",
    sequence: second,
    headers: undefined,
  };
}

function project(events: readonly ReceivedEvent[]): Run {
  return events.reduce((run, event) => {
    const runEvent = runEventFrom(event);
    return runEvent === undefined ? run : applyRunEvent(run, runEvent, event);
  }, emptyRun("run-1"));
}

const wholeRun = [
  received(create(RunRequestedSchema, { spec: { modelName: "default" } }), "pipeline", 1),
  received(create(DatasetStartedSchema), "ingestion", 2),
  received(create(DatasetPreparedSchema, { dataset: { digest: "d", trainImages: 5 } }), "ingestion", 4),
  received(create(TrainingEpochCompletedSchema, { metrics: { epoch: 1, epochs: 1 } }), "training", 6),
  received(create(ModelTrainedSchema, { model: { name: "default", version: 3 } }), "training", 7),
  received(create(ModelPromotedSchema, { decision: { promote: true } }), "evaluation", 8),
  received(create(ModelDeployedSchema, { version: 3 }), "prediction", 9),
];

test("every event of a run has its place in RunEvent", () => {
  for (const { schema, options } of eventTypes.values()) {
    const event = received(create(schema), "any", 1);
    const isOfRun = !options.registry && !options.prediction;
    assert.equal(runEventFrom(event) !== undefined, isOfRun, schema.typeName);
  }
});

test("a run is what its events say", () => {
  const run = project(wholeRun);
  assert.equal(run.status, RunStatus.SUCCEEDED);
  assert.deepEqual(
    [run.modelName, run.modelVersion, run.dataset?.digest, run.lastEpoch?.epoch],
    ["default", 3, "d", 1],
  );
  assert.equal(run.traceId, traceId);
  assert.deepEqual([run.requestedAt?.seconds, run.finishedAt?.seconds], [1n, 8n]);
  const times = run.stages.map(({ name, startedAt, finishedAt }) => [name, startedAt?.seconds, finishedAt?.seconds]);
  assert.deepEqual(times, [
    ["ingestion", 2n, 4n],
    ["training", 6n, 7n],
    ["evaluation", 8n, 8n],
    ["prediction", 8n, 9n],
  ]);
});

test("stages are in the order in which they began, whichever of them was heard of last", () => {
  const late = received(create(DatasetStartedSchema), "ingestion", 6);
  const { stages } = project([...wholeRun.slice(0, 4), late]);
  assert.deepEqual(
    stages.map(({ name, startedAt }) => [name, startedAt?.seconds]),
    [
      ["ingestion", 2n],
      ["training", 6n],
    ],
  );
});

test("replaying the same events gives the same run", () => {
  assert.deepEqual(project(wholeRun), project(wholeRun));
});

test("the decision ends a run, and the deployment may be told before or after it", () => {
  const [deployed, promoted] = [wholeRun.slice(-1), wholeRun.slice(-2, -1)];
  const before = wholeRun.slice(0, -2);
  assert.equal(hasEnded(project([...before, ...deployed])), false);
  assert.equal(project([...before, ...promoted]).status, RunStatus.SUCCEEDED);
  const swapped = project([...before, ...deployed, ...promoted]);
  assert.equal(swapped.status, RunStatus.SUCCEEDED);
  assert.equal(swapped.stages.find(({ name }) => name === "prediction")?.finishedAt?.seconds, 9n);
});

test("the same request stored again leaves a finished run as it is", () => {
  const again = received(create(RunRequestedSchema, { spec: { modelName: "other" } }), "pipeline", 20);
  assert.deepEqual(project([...wholeRun, again]), project(wholeRun));
});

test("what has ended stays ended, whatever arrives late", () => {
  const cancelled = [...wholeRun.slice(0, 4), received(create(RunCancelledSchema), "pipeline", 5)];
  const late = [...cancelled, ...wholeRun.slice(4).filter(({ type }) => type !== "millrace.v1.ModelPromoted")];
  assert.equal(project(cancelled).status, RunStatus.CANCELLED);
  assert.equal(project(late).status, RunStatus.CANCELLED);
  assert.equal(project(late).finishedAt?.seconds, 5n);
});

test("a cancellation that comes while the model goes live is too late", () => {
  const promoted = wholeRun.findIndex(({ type }) => type === "millrace.v1.ModelPromoted");
  const cancelled = [...wholeRun.slice(0, promoted), received(create(RunCancelledSchema), "pipeline", 50)];
  const run = project([...cancelled, ...wholeRun.slice(promoted)]);
  assert.equal(run.status, RunStatus.SUCCEEDED);
  assert.equal(run.decision?.promote, true);
});

test("a run ends as failed with the stage's reason, and as rejected without a deployment", () => {
  const requested = wholeRun.slice(0, 1);
  const failed = project([
    ...requested,
    received(create(RunFailedSchema, { stage: "ingestion", code: "X" }), "ingestion", 3),
  ]);
  assert.deepEqual([failed.status, failed.failure?.code], [RunStatus.FAILED, "X"]);
  const rejected = project([...requested, received(create(ModelRejectedSchema, { decision: {} }), "evaluation", 3)]);
  assert.deepEqual([rejected.status, rejected.decision?.promote], [RunStatus.SUCCEEDED, false]);
  const undeployed = received(create(ModelDeploymentFailedSchema, { code: "X", message: "m" }), "prediction", 9);
  assert.equal(project([...wholeRun.slice(0, -1), undeployed]).status, RunStatus.SUCCEEDED, "its own part is done");
});

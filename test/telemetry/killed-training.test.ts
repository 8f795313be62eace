import assert from "node:assert/strict";
import { test } from "node:test";
import { RunStatus } from "../../gen/millrace/v1/pipeline_pb.ts";
import { eventually } from "../helpers/bus.ts";
import { orphansOf, type ReceivedSpan, startOtlpReceiver } from "../helpers/otlp-receiver.ts";
import { smallRun, startPlatform } from "../helpers/platform.ts";

/** Long enough that the training is still at work when the kill arrives. */
const spec = {
  ...smallRun,
  dataset: { ...smallRun.dataset, limitPerClass: 60 },
  training: { ...smallRun.training, epochs: 24 },
};

const of = (spans: readonly ReceivedSpan[], name: string) => spans.filter((span) => span.name === name);
const attemptOf = ({ attributes }: ReceivedSpan) => attributes["millrace.delivery.attempt"];
const failureBefore = ({ attributes }: ReceivedSpan) => attributes["millrace.delivery.failure_before"];
const processOf = ({ resource }: ReceivedSpan) => resource["process.pid"];

test("a run whose training is killed and given out again is one trace, with both tries", async (t) => {
  const receiver = await startOtlpReceiver(t);
  const platform = await startPlatform(t, { ...receiver.env, MILLRACE_ACK_WAIT_MS: "1500" });
  const traceOf = (traceId: string) => receiver.spans.filter((span) => span.traceId === traceId);
  const receipts = (traceId: string) => of(traceOf(traceId), "receive millrace.v1.{run}.dataset.prepared");
  let killed: unknown;
  const { run } = await platform.run({ spec }, async ({ event }, { traceId }) => {
    if (event.case !== "trainingEpochCompleted" || killed !== undefined) return;
    const first = await eventually("the first try has been sent", () => receipts(traceId)[0]);
    killed = processOf(first);
    await platform.kill("training");
  });
  assert.equal(run.status, RunStatus.SUCCEEDED, run.failure?.message);
  const spans = await eventually("the deployment is in the trace", () => {
    const found = traceOf(run.traceId);
    return (
      of(found, "deploy model").length > 0 && of(found, "process millrace.v1.{run}.model.trained").length > 0 && found
    );
  });

  const tries = receipts(run.traceId).map((span) => [attemptOf(span), processOf(span) === killed]);
  assert.deepEqual(tries, [
    [1, true],
    [2, false],
  ]);
  const done = of(spans, "process millrace.v1.{run}.dataset.prepared");
  assert.deepEqual(done.map(attemptOf), [2], "the try that was killed has no end");
  assert.match(String(done.map(failureBefore)), /^not known to this process: .* may have died/);

  const roots = spans.filter(({ parentSpanId }) => parentSpanId === undefined);
  assert.deepEqual(
    roots.map(({ name }) => name),
    ["millrace.v1.PipelineService/RequestRun"],
  );
  // What the killed process had open died with it; of all that was sent, only that is missing.
  const orphanedElsewhere = orphansOf(spans).filter((span) => processOf(span) !== killed);
  assert.deepEqual(
    orphanedElsewhere.map(({ name }) => name),
    [],
  );
  const ofRun = receiver.spans.filter(({ attributes }) => attributes["millrace.run.id"] === run.runId);
  assert.deepEqual([...new Set(ofRun.map(({ traceId }) => traceId))], [run.traceId]);
});

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { traceCalls } from "../../../client/tracing.ts";
import { AppError } from "../../../lib/errors.ts";
import { startTelemetry } from "../../../lib/telemetry/sdk.ts";
import { currentTraceId, withSpan } from "../../../lib/telemetry/spans.ts";
import { eventually } from "../../helpers/bus.ts";
import { predictRequest, rejection, startServer } from "../rpc/server-fixture.ts";
import { attributesOf, type OtlpSpan, readTraceFiles, spansOf } from "../telemetry/otlp-json.ts";
import { connectClient, startPredictionServer } from "./prediction-server.ts";

const traceDir = mkdtempSync(join(tmpdir(), "millrace-test-"));
const telemetry = await startTelemetry({ service: "caller", version: "0.0.0", instanceId: "one", traceDir });
after(async () => {
  await telemetry.shutdown();
  rmSync(traceDir, { recursive: true });
});

const [serverKind, clientKind] = [2, 3];
const failed = 2;

/** The spans of the calls made by `work`, as soon as as many as expected are in the file. */
async function tracedSpans(work: () => Promise<unknown>, count: number): Promise<OtlpSpan[]> {
  const traceId = await withSpan("caller", {}, async () => {
    await work();
    return currentTraceId();
  });
  return eventually(`${count} spans are written`, async () => {
    const spans = spansOf(await readTraceFiles(traceDir).catch(() => [])).filter((span) => span.traceId === traceId);
    return spans.length >= count && spans;
  });
}

const ofKind = (spans: readonly OtlpSpan[], wanted: number) => spans.filter(({ kind }) => kind === wanted);

test("a call is a client span, its parent the caller's, its child the server's; retries are events on it", async (t) => {
  let calls = 0;
  const server = await startPredictionServer(t, {
    getModel: () => {
      if (calls++ === 0) throw new AppError("MODEL_NOT_READY", "not now", { details: { retryDelayMs: "5" } });
      return {};
    },
  });
  const { predictions } = connectClient(server, { tracing: traceCalls });
  const spans = await tracedSpans(() => predictions.getModel({}), 4);
  const [call, ...others] = ofKind(spans, clientKind);
  assert.ok(call);
  assert.deepEqual(others, [], "one span for all tries");
  assert.equal(call.parentSpanId, spans.find(({ name }) => name === "caller")?.spanId);
  const parents = ofKind(spans, serverKind).map(({ parentSpanId }) => parentSpanId);
  assert.deepEqual(parents, [call.spanId, call.spanId]);
  assert.deepEqual(attributesOf(call.attributes), {
    "rpc.system.name": "grpc",
    "rpc.method": "millrace.v1.PredictionService/GetModel",
    "rpc.response.status_code": "OK",
    "server.address": "127.0.0.1",
    "server.port": server.port,
  });
  assert.deepEqual(
    call.events.map(({ name }) => name),
    ["retry"],
  );
});

test("a failure is on the span with its reason", async (t) => {
  const { predictions } = connectClient(await startServer(t), { tracing: traceCalls });
  const spans = await tracedSpans(() => rejection(predictions.predict(predictRequest("field"))), 3);
  const [call] = ofKind(spans, clientKind);
  assert.equal(call?.status.code, failed);
  const attributes = attributesOf(call?.attributes ?? []);
  assert.equal(attributes["error.type"], "INVALID_REQUEST");
  assert.equal(attributes["rpc.response.status_code"], "INVALID_ARGUMENT");
});

test("the span of a stream ends when its loop is left, and that is no failure", async (t) => {
  const { pipeline } = connectClient(await startServer(t), { tracing: traceCalls });
  const spans = await tracedSpans(async () => {
    for await (const _ of pipeline.watchRun({ runId: "run-1" })) break;
  }, 4);
  const [call] = ofKind(spans, clientKind);
  assert.notEqual(call?.status.code, failed);
  assert.equal(attributesOf(call?.attributes ?? [])["rpc.response.status_code"], "CANCELLED");
});

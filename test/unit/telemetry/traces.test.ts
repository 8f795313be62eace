import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { ConnectError } from "@connectrpc/connect";
import { createMillraceClient, waitUntilServing } from "../../../client/client.ts";
import { traceCalls } from "../../../client/tracing.ts";
import { ErrorInfoSchema } from "../../../gen/google/rpc/error_details_pb.ts";
import { AppError } from "../../../lib/errors.ts";
import { createLogger } from "../../../lib/log.ts";
import { attributeTable } from "../../../lib/telemetry/attributes.ts";
import { startTelemetry } from "../../../lib/telemetry/sdk.ts";
import { currentTraceId, withRunId, withSpan } from "../../../lib/telemetry/spans.ts";
import { predictRequest, type RunningServer, rejection, startServer } from "../rpc/server-fixture.ts";
import { attributesOf, type OtlpSpan, readTraceFiles, spansOf } from "./otlp-json.ts";

const traceDir = mkdtempSync(join(tmpdir(), "millrace-test-"));
// One for the process: OpenTelemetry's registry is global.
const telemetry = await startTelemetry({ service: "testing", version: "0.0.0", instanceId: "one", traceDir });
after(async () => {
  await telemetry.shutdown();
  rmSync(traceDir, { recursive: true });
});

/** The spans of a trace, as soon as as many as expected are in the file. */
async function spansOfTrace(traceId: string | undefined, count: number): Promise<OtlpSpan[]> {
  const giveUpAtMs = performance.now() + 5_000;
  for (;;) {
    const spans = spansOf(await readTraceFiles(traceDir).catch(() => [])).filter((span) => span.traceId === traceId);
    if (spans.length >= count) return spans;
    assert.ok(performance.now() < giveUpAtMs, `only ${spans.length} of ${count} spans were written`);
    await delay(20);
  }
}

function named(spans: readonly OtlpSpan[], name: string, kind: number): OtlpSpan {
  const span = spans.find((each) => each.name === name && each.kind === kind);
  assert.ok(span, `no span ${name} of kind ${kind}`);
  return span;
}

function tracedClient({ url, closeLater }: RunningServer) {
  const millrace = createMillraceClient({ baseUrl: url, retries: 0, tracing: traceCalls });
  closeLater(millrace.close);
  return millrace;
}

const internal = 1;
const server = 2;
const client = 3;

test("the spans of a call are children: caller, client, server; and the file says whose they are", async (t) => {
  const { predictions } = tracedClient(await startServer(t));
  const traceId = await withSpan("classify", { attributes: { "millrace.images.count": 1 } }, async () => {
    await predictions.predict(predictRequest("cat"));
    return currentTraceId();
  });
  const spans = await spansOfTrace(traceId, 3);
  const method = "millrace.v1.PredictionService/Predict";
  const root = named(spans, "classify", internal);
  const clientSpan = named(spans, method, client);
  const serverSpan = named(spans, method, server);
  assert.equal(clientSpan.parentSpanId, root.spanId);
  assert.equal(serverSpan.parentSpanId, clientSpan.spanId);
  assert.deepEqual(attributesOf(serverSpan.attributes), {
    "rpc.system.name": "grpc",
    "rpc.method": method,
    "millrace.rpc.protocol": "grpc",
    "rpc.response.status_code": "OK",
  });
  const [request] = await readTraceFiles(traceDir);
  const resource = attributesOf(request?.resourceSpans[0]?.resource.attributes ?? []);
  assert.deepEqual([resource["service.name"], resource["service.instance.id"]], ["testing", "one"]);
});

test("a stream's handler works inside its span", async (t) => {
  const { pipeline } = tracedClient(await startServer(t));
  const traceId = await withSpan("watch", {}, async () => {
    for await (const _ of pipeline.watchRun({ runId: "traced" })) break;
    return currentTraceId();
  });
  const spans = await spansOfTrace(traceId, 4);
  const serverSpan = named(spans, "millrace.v1.PipelineService/WatchRun", server);
  assert.equal(named(spans, "look for the run", internal).parentSpanId, serverSpan.spanId);
});

test("a failure is on the span, with its code and an exception, and a rejection by a rule is not the server's", async (t) => {
  const { predictions } = tracedClient(await startServer(t));
  let traceId: string | undefined;
  const work = withSpan("fails", {}, async () => {
    traceId = currentTraceId();
    await rejection(predictions.predict({}));
    await rejection(predictions.predict(predictRequest("missing")));
    throw new AppError("MODEL_NOT_READY", "no model is live yet");
  });
  assert.equal(AppError.from(await rejection(work)).code, "MODEL_NOT_READY");
  const spans = await spansOfTrace(traceId, 5);
  const failed = 2;
  const root = named(spans, "fails", internal);
  assert.equal(root.status.code, failed);
  assert.equal(attributesOf(root.attributes)["error.type"], "MODEL_NOT_READY");
  assert.equal(attributesOf(root.events[0]?.attributes ?? [])["exception.type"], "MODEL_NOT_READY");
  const serverSpans = spans.filter(({ kind }) => kind === server);
  const outcome = serverSpans.map(({ status, attributes }) => [
    attributesOf(attributes)["rpc.response.status_code"],
    status.code,
  ]);
  assert.deepEqual(outcome, [
    ["INVALID_ARGUMENT", 0],
    ["UNAVAILABLE", failed],
  ]);
});

test("the trace id in the answer to a stranger's exception finds its log line", async (t) => {
  const server = await startServer(t);
  const { predictions } = tracedClient(server);
  const error = ConnectError.from(await rejection(predictions.predict(predictRequest("stranger"))));
  assert.equal(error.rawMessage, "internal error");
  const details = error.findDetails(ErrorInfoSchema)[0]?.metadata ?? {};
  const line = server.logLines.find(({ event }) => event === "rpc.failed");
  assert.equal(line?.trace_id, details.trace_id);
  assert.match(String(details.trace_id), /^[0-9a-f]{32}$/);
});

test("health checks leave no spans", async (t) => {
  const server = await startServer(t);
  await waitUntilServing(tracedClient(server).health, { timeoutMs: 5_000 });
  const traceId = await withSpan("marker", {}, async () => currentTraceId());
  await spansOfTrace(traceId, 1);
  const names = spansOf(await readTraceFiles(traceDir)).map(({ name }) => name);
  assert.deepEqual(
    names.filter((name) => name.startsWith("grpc.")),
    [],
  );
});

test("every attribute that was written is in the table", async () => {
  const requests = await readTraceFiles(traceDir);
  const written = [
    ...spansOf(requests).flatMap(({ attributes, events }) => [
      ...attributes,
      ...events.flatMap((event) => event.attributes),
    ]),
    ...requests.flatMap(({ resourceSpans }) => resourceSpans.flatMap(({ resource }) => resource.attributes)),
  ];
  assert.ok(written.length > 0);
  assert.deepEqual(
    written.map(({ key }) => key).filter((key) => !(key in attributeTable)),
    [],
  );
});

test("a log line carries the trace, the span and the run of the work under way", async () => {
  const lines: string[] = [];
  const logger = createLogger({ service: "testing", destination: { write: (line) => lines.push(line) } });
  const traceId = await withSpan("logs", {}, () =>
    withRunId("run-1", () => {
      logger.info({ event: "test.logged" });
      return currentTraceId();
    }),
  );
  const { trace_id, span_id, run_id } = JSON.parse(lines[0] ?? "");
  assert.deepEqual([trace_id, run_id], [traceId, "run-1"]);
  assert.match(span_id, /^[0-9a-f]{16}$/);
});

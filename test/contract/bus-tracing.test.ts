import assert from "node:assert/strict";
import { after, beforeEach, suite, test } from "node:test";
import { context, propagation, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import { node, tracing } from "@opentelemetry/sdk-node";
import { startStage } from "../../lib/bus/stage.ts";
import { deadLetterStream, eventSubject } from "../../lib/bus/subjects.ts";
import { AppError } from "../../lib/errors.ts";
import { withSpan } from "../../lib/telemetry/spans.ts";
import {
  eventually,
  openTestBus,
  prepared,
  requestRun,
  storedEvents,
  storedMessages,
  testStage,
} from "../helpers/bus.ts";
import { startNats } from "../helpers/nats-server.ts";

const exporter = new tracing.InMemorySpanExporter();
const provider = new node.NodeTracerProvider({ spanProcessors: [new tracing.SimpleSpanProcessor(exporter)] });
provider.register();
beforeEach(() => exporter.reset());
after(async () => {
  await provider.shutdown();
  for (const api of [trace, context, propagation]) api.disable();
});

const traceparent = ({ traceId, spanId }: { traceId: string; spanId: string }) => `00-${traceId}-${spanId}-01`;

suite("the trace of a run", () => {
  test("goes from each publication to its handling and on, in one trace", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats, { service: "pipeline" });
    await using worker = await openTestBus(nats, { service: "ingestion" });
    await withSpan("RequestRun", {}, () => requestRun(bus, "r1"));
    const stage = startStage(
      worker,
      testStage(async () => prepared()),
    );
    const outcome = eventSubject("r1", "dataset.prepared");
    await eventually("the outcome", async () => (await storedEvents(bus, outcome)).length === 1);
    await stage.stop();

    const spans = exporter.getFinishedSpans();
    const find = (name: string) => {
      const found = spans.filter((span) => span.name === name);
      assert.equal(found.length, 1, `${name} among ${spans.map((span) => span.name)}`);
      return found[0] as (typeof spans)[number];
    };
    const root = find("RequestRun");
    const sent = find("send millrace.v1.{run}.run.requested");
    const processed = find("process millrace.v1.{run}.run.requested");
    const received = find("receive millrace.v1.{run}.run.requested");
    const sentOn = find("send millrace.v1.{run}.dataset.prepared");
    const parents = [sent, received, processed, sentOn].map((span) => span.parentSpanContext?.spanId);
    assert.deepEqual(
      parents,
      [root, sent, sent, processed].map((span) => span.spanContext().spanId),
    );
    assert.equal(new Set(spans.map((span) => span.spanContext().traceId)).size, 1);
    assert.deepEqual([sent.kind, processed.kind], [SpanKind.PRODUCER, SpanKind.CONSUMER]);
    assert.equal(processed.links[0]?.context.spanId, sent.spanContext().spanId);
    assert.equal(sent.attributes["millrace.run.id"], "r1");
    const [request] = await storedEvents(bus, eventSubject("r1", "run.requested"));
    const expected = {
      "messaging.system": "nats",
      "messaging.destination.name": "millrace.v1.r1.run.requested",
      "messaging.consumer.group.name": "ingestion",
      "messaging.message.id": request?.id,
      "cloudevents.event_source": "pipeline",
      "cloudevents.event_type": "millrace.v1.RunRequested",
      "millrace.run.id": "r1",
      "millrace.delivery.attempt": 1,
    };
    for (const [name, value] of Object.entries(expected)) assert.equal(processed.attributes[name], value, name);
  });

  test("hands the traceparent of its beginning on unchanged, while each hop writes its own", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    await requestRun(bus, "r1");
    const stage = startStage(
      bus,
      testStage(async () => prepared()),
    );
    const outcome = eventSubject("r1", "dataset.prepared");
    await eventually("the outcome", async () => (await storedEvents(bus, outcome)).length === 1);
    await stage.stop();
    const [first, second] = await storedMessages(bus, eventSubject("r1", ">"));
    const sends = exporter.getFinishedSpans().filter(({ kind }) => kind === SpanKind.PRODUCER);
    const hops = sends.map((span) => traceparent(span.spanContext()));
    assert.deepEqual([first?.header.get("traceparent"), second?.header.get("traceparent")], hops);
    assert.equal(first?.header.get("ce-traceparent"), hops[0]);
    assert.equal(second?.header.get("ce-traceparent"), hops[0]);
  });

  test("shows each failed try, and reaches the dead letter and the failure", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const failing = testStage(
      async () => {
        throw new AppError("ARTIFACT_TIMEOUT", "the store did not answer");
      },
      { maxAttempts: 2 },
    );
    await requestRun(bus, "r1");
    const stage = startStage(bus, failing);
    const [letter] = await eventually("the dead letter", async () => {
      const failures = await storedMessages(bus, eventSubject("r1", "run.failed"));
      return failures.length > 0 && storedMessages(bus, "millrace.dead.v1.>", deadLetterStream);
    });
    await stage.stop();
    const tries = exporter.getFinishedSpans().filter(({ kind }) => kind === SpanKind.CONSUMER);
    assert.deepEqual(
      tries.map(({ status, attributes }) => [status.code, attributes["millrace.delivery.attempt"]]),
      [1, 2].map((attempt) => [SpanStatusCode.ERROR, attempt]),
    );
    const failuresBefore = tries.map(({ attributes }) => attributes["millrace.delivery.failure_before"]);
    assert.deepEqual(failuresBefore, [undefined, "ARTIFACT_TIMEOUT: the store did not answer"]);
    const [failure] = await storedMessages(bus, eventSubject("r1", "run.failed"));
    for (const message of [letter, failure]) {
      assert.equal(message?.header.get("traceparent").split("-")[1], tries[0]?.spanContext().traceId);
    }
  });
});

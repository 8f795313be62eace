import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type Context,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  TraceFlags,
  type Tracer,
  trace,
} from "@opentelemetry/api";
import { InMemorySpanExporter, SimpleSpanProcessor, TracerProvider } from "@opentelemetry/sdk-trace";
import { createRequestSampling } from "../../../lib/telemetry/request-sampling.ts";

/** A tracer whose requests are kept to a share, and the names of the spans that were. */
function sampled(share: number): { tracer: Tracer; kept: () => string[] } {
  const exporter = new InMemorySpanExporter();
  const processor = createRequestSampling(share, new SimpleSpanProcessor({ exporter }));
  const tracer = new TracerProvider({ spanProcessors: [processor] }).getTracer("test");
  return { tracer, kept: () => exporter.getFinishedSpans().map(({ name }) => name) };
}

interface Step {
  readonly name?: string;
  readonly kind?: SpanKind;
  readonly fails?: boolean;
}

/** A request with one span inside. */
function request(
  tracer: Tracer,
  { name = "inner", kind = SpanKind.INTERNAL, fails = false }: Step = {},
  from = ROOT_CONTEXT,
) {
  const call = tracer.startSpan("call", { kind: SpanKind.SERVER }, from);
  const inner = tracer.startSpan(name, { kind }, trace.setSpan(from, call));
  if (fails) inner.setStatus({ code: SpanStatusCode.ERROR });
  inner.end();
  call.end();
}

function callersTrace(): Context {
  const caller = {
    traceId: "0af7651916cd43dd8448eb211c80319c",
    spanId: "b7ad6b7169203331",
    traceFlags: TraceFlags.SAMPLED,
  };
  return trace.setSpanContext(ROOT_CONTEXT, { ...caller, isRemote: true });
}

test("a request outside the share leaves nothing, one that fails is kept whole", () => {
  const { tracer, kept } = sampled(0);
  request(tracer);
  assert.deepEqual(kept(), []);
  request(tracer, { name: "failed", fails: true });
  assert.deepEqual(kept(), ["failed", "call"]);
});

test("a request that publishes an event, and the handling of one, are kept", () => {
  const { tracer, kept } = sampled(0);
  request(tracer, { name: "send", kind: SpanKind.PRODUCER });
  tracer.startSpan("process", { kind: SpanKind.CONSUMER }).end();
  assert.deepEqual(kept(), ["send", "call", "process"]);
});

test("in a caller's trace, and in one that was not begun by a request, everything is kept", () => {
  const { tracer, kept } = sampled(0);
  request(tracer, {}, callersTrace());
  tracer.startSpan("deploy model").end();
  assert.deepEqual(kept(), ["inner", "call", "deploy model"]);
});

test("of many requests about the share is kept, each whole or not at all", () => {
  const { tracer, kept } = sampled(0.25);
  const requests = 4_000;
  for (let index = 0; index < requests; index++) request(tracer);
  const spans = kept();
  assert.equal(spans.filter((name) => name === "inner").length, spans.length / 2);
  // Five standard deviations of a binomial distribution either way.
  const deviation = Math.sqrt(requests * 0.25 * 0.75);
  assert.ok(
    Math.abs(spans.length / 2 - requests * 0.25) < 5 * deviation,
    `${spans.length / 2} of ${requests} were kept`,
  );
});

test("a span that outlives its request is let go with it", () => {
  const { tracer, kept } = sampled(0);
  const call = tracer.startSpan("call", { kind: SpanKind.SERVER });
  const inner = tracer.startSpan("inner", {}, trace.setSpan(ROOT_CONTEXT, call));
  call.end();
  inner.end();
  assert.deepEqual(kept(), []);
});

test("a failure after the request has ended still keeps it", () => {
  const { tracer, kept } = sampled(0);
  const call = tracer.startSpan("call", { kind: SpanKind.SERVER });
  const inner = tracer.startSpan("inner", {}, trace.setSpan(ROOT_CONTEXT, call));
  call.end();
  inner.setStatus({ code: SpanStatusCode.ERROR });
  inner.end();
  assert.deepEqual(kept(), ["call", "inner"]);
});

test("what waits is bounded: the traces and the spans beyond are kept", () => {
  const { tracer, kept } = sampled(0);
  const open = Array.from({ length: 1_001 }, () => tracer.startSpan("call", { kind: SpanKind.SERVER }));
  for (const call of open) call.end();
  assert.deepEqual(kept(), ["call"], "one trace more than can wait");

  const long = sampled(0);
  const call = long.tracer.startSpan("call", { kind: SpanKind.SERVER });
  for (let index = 0; index < 200; index++) long.tracer.startSpan("inner", {}, trace.setSpan(ROOT_CONTEXT, call)).end();
  call.end();
  assert.equal(long.kept().length, 201);
});

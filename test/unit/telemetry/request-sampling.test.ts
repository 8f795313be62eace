import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type Context,
  type HrTime,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  TraceFlags,
  trace,
} from "@opentelemetry/api";
import {
  AlwaysOffSampler,
  InMemorySpanExporter,
  ParentBasedSampler,
  type ReadableSpan,
  type Sampler,
  SimpleSpanProcessor,
  TracerProvider,
} from "@opentelemetry/sdk-trace";
import { createSpanIds, type SpanSource } from "../../../lib/telemetry/provisional-span.ts";
import { createRequestSampling } from "../../../lib/telemetry/request-sampling.ts";

interface Sampled {
  readonly tracer: SpanSource;
  /** The spans that were kept, in the order in which the SDK was told of their end. */
  readonly spans: () => readonly ReadableSpan[];
  /** Their names. */
  readonly kept: () => string[];
}

/** A tracer whose requests are kept to a share. */
function sampled(share: number, sampler?: Sampler): Sampled {
  const exporter = new InMemorySpanExporter();
  const idGenerator = createSpanIds();
  const spanProcessors = [new SimpleSpanProcessor({ exporter })];
  const provider = new TracerProvider({ spanProcessors, idGenerator, ...(sampler && { sampler }) });
  const tracer = createRequestSampling(share, provider.getTracer("test"), idGenerator);
  const spans = () => exporter.getFinishedSpans();
  return { tracer, spans, kept: () => spans().map(({ name }) => name) };
}

interface Step {
  readonly name?: string;
  readonly kind?: SpanKind;
  readonly fails?: boolean;
}

/** A request with one span inside. */
function request(
  tracer: SpanSource,
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

test("what waits is bounded: a trace of more spans is kept", () => {
  const { tracer, kept } = sampled(0);
  const call = tracer.startSpan("call", { kind: SpanKind.SERVER });
  for (let index = 0; index < 200; index++) tracer.startSpan("inner", {}, trace.setSpan(ROOT_CONTEXT, call)).end();
  call.end();
  assert.equal(kept().length, 201);
});

test("what is kept in the end is as if it had been recorded from the start", () => {
  const { tracer, spans } = sampled(0);
  const link = { context: { traceId: "0af7651916cd43dd8448eb211c80319c", spanId: "b7ad6b7169203331", traceFlags: 1 } };
  const beganMs = Date.now();
  const call = tracer.startSpan("call", { kind: SpanKind.SERVER, attributes: { "rpc.system.name": "grpc" } });
  const within = trace.setSpan(ROOT_CONTEXT, call);
  const inner = tracer.startSpan("inner", { links: [link], attributes: { "millrace.model.version": 3 } }, within);
  inner.setAttributes({ "millrace.model.name": "default" }).addEvent("decoded", { "millrace.images.count": 1 });
  inner.addLinks([link]).addLink(link).updateName("classify").addEvent("classified", beganMs);
  inner.end();
  inner.setAttribute("too.late", true);
  inner.end();
  assert.equal(inner.isRecording(), false);
  call.recordException(new Error("the disk is full"));
  assert.deepEqual(spans(), [], "nothing has failed yet");
  call.setStatus({ code: SpanStatusCode.ERROR, message: "the disk is full" });
  const after = tracer.startSpan("after", {}, within);
  after.end();
  call.setAttribute("rpc.response.status_code", "INTERNAL");
  assert.equal(call.isRecording(), true);
  call.end();
  const endedMs = Date.now();

  const [first, second, third] = spans();
  assert.ok(first && second && third);
  assert.deepEqual([first.name, second.name, third.name], ["classify", "after", "call"]);
  assert.deepEqual(
    [first.parentSpanContext?.spanId, second.parentSpanContext?.spanId, third.parentSpanContext?.spanId],
    [call.spanContext().spanId, call.spanContext().spanId, undefined],
  );
  assert.deepEqual(first.spanContext(), { ...inner.spanContext(), traceState: undefined });
  assert.deepEqual(third.spanContext(), { ...call.spanContext(), traceState: undefined });
  assert.equal(second.spanContext().traceId, call.spanContext().traceId);
  assert.deepEqual(first.attributes, { "millrace.model.version": 3, "millrace.model.name": "default" });
  assert.deepEqual(third.attributes, { "rpc.system.name": "grpc", "rpc.response.status_code": "INTERNAL" });
  assert.equal(first.links.length, 3);
  assert.deepEqual(
    [...first.events, ...third.events].map(({ name }) => name),
    ["decoded", "classified", "exception"],
  );
  assert.deepEqual([third.kind, third.status.message], [SpanKind.SERVER, "the disk is full"]);
  // The clock for dates has milliseconds.
  const times = [beganMs, ...[third.startTime, first.startTime, first.endTime, third.endTime].map(toMs), endedMs + 1];
  assert.deepEqual(
    times,
    times.toSorted((a, b) => a - b),
  );
});

test("the SDK's own sampler has the last word", () => {
  const { tracer, kept } = sampled(0, new ParentBasedSampler({ root: new AlwaysOffSampler() }));
  request(tracer, { fails: true });
  assert.deepEqual(kept(), []);
});

function toMs([seconds, nanoseconds]: HrTime): number {
  return seconds * 1_000 + nanoseconds / 1e6;
}

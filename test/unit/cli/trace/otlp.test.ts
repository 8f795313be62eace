import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { SpanKind, SpanStatusCode } from "@opentelemetry/api";
import { SimpleSpanProcessor, TracerProvider } from "@opentelemetry/sdk-trace";
import { spansFromOtlpLine } from "../../../../cli/trace/otlp.ts";
import { createTraceFileExporter } from "../../../../lib/telemetry/trace-file.ts";
import { tempFolder } from "../../../helpers/temp-folder.ts";
import { beganMs, otlpLine } from "./traces.ts";

test("what the trace files hold is read back: names, times, attributes, events, links and errors", async (t) => {
  const folder = await tempFolder(t);
  const exporter = createTraceFileExporter({ path: join(folder, "x.jsonl"), maxBytes: 1e6, maxFiles: 2 });
  const provider = new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter })] });
  t.after(() => provider.shutdown());
  const context = { traceId: "1".repeat(32), spanId: "2".repeat(16), traceFlags: 1 };
  const attributes = { text: "größe", whole: 3, part: 0.5, yes: true, list: ["a", "b"] };
  const written = provider.getTracer("test").startSpan("send", {
    kind: SpanKind.PRODUCER,
    startTime: [1_700_000_000, 500_000],
    attributes,
    links: [{ context, attributes: { "millrace.run.id": "r1" } }],
  });
  written.addEvent("exception", { "exception.message": "no" }, [1_700_000_000, 600_000]);
  written.setStatus({ code: SpanStatusCode.ERROR, message: "it broke" });
  written.end([1_700_000_000, 2_500_000]);
  await provider.forceFlush();

  const [name = ""] = await readdir(folder);
  const line = (await readFile(join(folder, name), "utf8")).trimEnd();
  const [read] = spansFromOtlpLine(line) ?? [];
  assert.match(read?.service ?? "", /^unknown_service/);
  assert.deepEqual(read, {
    traceId: written.spanContext().traceId,
    spanId: written.spanContext().spanId,
    parentSpanId: "",
    name: "send",
    kind: "producer",
    service: read?.service,
    startMs: 1_700_000_000_000.5,
    endMs: 1_700_000_000_002.5,
    attributes,
    events: [{ name: "exception", timeMs: 1_700_000_000_000.6, attributes: { "exception.message": "no" } }],
    links: [{ traceId: context.traceId, spanId: context.spanId, attributes: { "millrace.run.id": "r1" } }],
    error: "it broke",
  });
});

test("the resource names the service, and a span without fields of its own has the defaults", () => {
  const [span] = spansFromOtlpLine(otlpLine("ingestion", {})) ?? [];
  assert.deepEqual(
    [span?.service, span?.kind, span?.parentSpanId, span?.error, span?.startMs],
    ["ingestion", "internal", "", undefined, beganMs],
  );
  assert.equal(spansFromOtlpLine('{"resourceSpans":[{"scopeSpans":[]}]}')?.length, 0);
});

test("nested and 64-bit values of attributes become plain ones", () => {
  const attributes = [
    { key: "n", value: { intValue: "9007199254740991" } },
    {
      key: "m",
      value: { kvlistValue: { values: [{ key: "a", value: { arrayValue: { values: [{ boolValue: true }] } } }] } },
    },
    { key: "__proto__", value: { stringValue: "kept" } },
    { key: "none", value: {} },
  ];
  const [span] = spansFromOtlpLine(otlpLine("x", { attributes })) ?? [];
  assert.deepEqual(Object.entries(span?.attributes ?? {}), [
    ["n", 9007199254740991],
    ["m", { a: [true] }],
    ["__proto__", "kept"],
    ["none", null],
  ]);
});

test("a span that ends before it begins, by a clock that was set back, ends when it begins", () => {
  const [span] = spansFromOtlpLine(otlpLine("x", { endTimeUnixNano: "1000" })) ?? [];
  assert.equal(span?.endMs, span?.startMs);
});

test("a line that is cut off, or is something else, is none", () => {
  const whole = otlpLine("x", {});
  for (const line of [
    whole.slice(0, -5),
    "not JSON",
    "3",
    "null",
    otlpLine("x", { traceId: "no digits" }),
    otlpLine("x", { startTimeUnixNano: "-1" }),
  ])
    assert.equal(spansFromOtlpLine(line), undefined, line);
});

import type { Attributes, TraceSpan } from "../../../../cli/trace/otlp.ts";
import { type TraceView, viewOf } from "../../../../cli/trace/view.ts";

export const traceId = "0af7651916cd43dd8448eb211c80319c";
/** When the traces of these tests begin. */
export const beganMs = Date.UTC(2026, 0, 2, 3, 4, 5);

export interface SpanOutline extends Partial<Omit<TraceSpan, "startMs" | "endMs" | "attributes">> {
  readonly id: string;
  readonly parent?: string;
  /** Start and end in milliseconds from the beginning of the trace. */
  readonly at: readonly [startMs: number, endMs: number];
  readonly attributes?: Attributes;
}

/** A span that says only what a test is about. Its name is its id. */
export function span({ id, parent = "", at: [startMs, endMs], ...others }: SpanOutline): TraceSpan {
  return {
    traceId,
    spanId: id,
    parentSpanId: parent,
    name: id,
    kind: "internal",
    service: "training",
    startMs: beganMs + startMs,
    endMs: beganMs + endMs,
    attributes: {},
    events: [],
    links: [],
    error: undefined,
    ...others,
  };
}

export function viewFrom(...spans: readonly SpanOutline[]): TraceView {
  return viewOf(spans.map(span), { traceId, runId: "run-1" });
}

/** A run in small: each stage begins after the one before has ended. */
export const run: readonly SpanOutline[] = [
  { id: "RequestRun", service: "pipeline", kind: "server", at: [0, 10] },
  { id: "send a", parent: "RequestRun", service: "pipeline", kind: "producer", at: [5, 8] },
  { id: "process a", parent: "send a", service: "ingestion", kind: "consumer", at: [20, 60] },
  { id: "prepare", parent: "process a", service: "ingestion", at: [25, 50] },
  { id: "report", parent: "process a", service: "ingestion", at: [30, 35] },
  { id: "send b", parent: "process a", service: "ingestion", kind: "producer", at: [52, 55] },
  { id: "process b", parent: "send b", kind: "consumer", at: [70, 200] },
];

/** A line of OTLP JSON, as a service writes it, with one span. */
export function otlpLine(service: string, fields: Readonly<Record<string, unknown>>): string {
  const resource = { attributes: [{ key: "service.name", value: { stringValue: service } }] };
  const one = {
    traceId,
    spanId: "00f067aa0ba902b7",
    name: "work",
    kind: 1,
    startTimeUnixNano: `${beganMs}000000`,
    endTimeUnixNano: `${beganMs + 1}000000`,
    ...fields,
  };
  return JSON.stringify({ resourceSpans: [{ resource, scopeSpans: [{ scope: { name: "test" }, spans: [one] }] }] });
}

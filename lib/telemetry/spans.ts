import {
  type Context,
  context,
  createContextKey,
  isSpanContextValid,
  type Link,
  type Span,
  SpanKind,
  type SpanOptions,
  SpanStatusCode,
  trace,
} from "@opentelemetry/api";
import { AppError } from "../errors.ts";
import type { SpanAttributes } from "./attributes.ts";
import { contextWithSpan } from "./context-with-span.ts";
import type { SpanSource } from "./provisional-span.ts";

/** Does nothing until telemetry has been started. */
const tracer: SpanSource = trace.getTracer("millrace");
/** Where spans begin. */
let source = tracer;

/** Puts a sampling before the tracer, from now on. For the start of telemetry. */
export function sampleSpans(sampling: (tracer: SpanSource) => SpanSource): void {
  source = sampling(tracer);
}

const runIdKey = createContextKey("millrace.run.id");

export interface SpanSettings {
  /** INTERNAL by default. */
  readonly kind?: SpanKind;
  readonly attributes?: SpanAttributes;
  /** Context that holds the parent; the active one by default. Use ROOT_CONTEXT for a span without a parent. */
  readonly parent?: Context;
  /** Other spans that led to this one, such as the run that trained a model. */
  readonly links?: readonly Link[];
  /** Where the work had begun before, in milliseconds since 1970. Default: now. */
  readonly startTimeMs?: number;
  /**
   * For work that as a rule begins no spans and writes no log lines: this span is not made active, which would cost more than the span itself.
   * What the work begins or writes after all belongs to the span around it. Default: false.
   */
  readonly isLeaf?: boolean;
}

/**
 * Runs `work` inside a new span, which is active while it runs (but see {@link SpanSettings.isLeaf}) and always ends.
 * What `work` throws is recorded on the span (see {@link failSpan}) and thrown on.
 *
 * @example const model = await withSpan("load model", { attributes: { "millrace.model.version": 3 } }, () => load())
 */
export async function withSpan<T>(
  name: string,
  settings: SpanSettings,
  work: (span: Span) => T | Promise<T>,
): Promise<T> {
  const parent = settings.parent ?? context.active();
  const span = begin(name, settings, parent);
  try {
    const within = settings.isLeaf === true ? context.active() : contextOf(span, parent);
    return await (within === context.active() ? work(span) : context.with(within, () => work(span)));
  } catch (error) {
    failSpan(span, error);
    throw error;
  } finally {
    span.end();
  }
}

/** The context for the work of a span: the parent's own where spans go nowhere and nobody's trace has to be passed on. */
export function contextOf(span: Span, parent: Context): Context {
  return span.isRecording() || isSpanContextValid(span.spanContext()) ? contextWithSpan(parent, span) : parent;
}

/** A span that the caller ends, for work that does not fit into one function. */
export function startSpan(name: string, settings: SpanSettings = {}): Span {
  return begin(name, settings, settings.parent ?? context.active());
}

function begin(name: string, settings: SpanSettings, parent: Context): Span {
  const { kind = SpanKind.INTERNAL, attributes, links, startTimeMs } = settings;
  // Set one by one: objects spread into one another were a good part of what a span cost here.
  const options: SpanOptions = { kind };
  if (attributes !== undefined) options.attributes = attributes;
  // The SDK copies links.
  if (links !== undefined) options.links = links as Link[];
  if (startTimeMs !== undefined) options.startTime = startTimeMs;
  return source.startSpan(name, options, parent);
}

/** Marks a span as failed: status, error type (our stable code) and an exception event with the stack. Does not end it. */
export function failSpan(span: Span, thrown: unknown): void {
  // To ask for the stack of an error is what is dear about it.
  if (!span.isRecording()) return;
  const error = AppError.from(thrown);
  const stack = thrown instanceof Error ? thrown.stack : error.stack;
  span.recordException({ name: error.code, message: error.message, ...(stack !== undefined && { stack }) });
  span.setAttributes({ "error.type": error.code, "millrace.error.retryable": error.retryable });
  span.setStatus({ code: SpanStatusCode.ERROR, message: error.message });
}

/** Trace id of the active span (32 hexadecimal digits), or undefined outside a trace. */
export function currentTraceId(): string | undefined {
  return currentSpanIds()?.trace_id;
}

/** Ids of the active span under the names that log lines use, or undefined outside a trace. */
export function currentSpanIds(): { readonly trace_id: string; readonly span_id: string } | undefined {
  const spanContext = trace.getActiveSpan()?.spanContext();
  if (spanContext === undefined || !isSpanContextValid(spanContext)) return undefined;
  return { trace_id: spanContext.traceId, span_id: spanContext.spanId };
}

/** Runs `work` as part of a run: log lines written meanwhile carry its id. */
export function withRunId<T>(runId: string, work: () => T): T {
  return context.with(context.active().setValue(runIdKey, runId), work);
}

/** The run that the active work belongs to, under the name that log lines use. */
export function currentRunId(): { readonly run_id: string } | undefined {
  const runId = context.active().getValue(runIdKey);
  return typeof runId === "string" ? { run_id: runId } : undefined;
}

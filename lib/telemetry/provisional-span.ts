import {
  type Attributes,
  type AttributeValue,
  type Context,
  type Exception,
  type Link,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  type SpanOptions,
  type SpanStatus,
  SpanStatusCode,
  type TimeInput,
  TraceFlags,
  type Tracer,
  trace,
} from "@opentelemetry/api";
import { type IdGenerator, RandomIdGenerator } from "@opentelemetry/sdk-trace";

/** Spans of one trace that wait; a trace that has more is kept. */
const maxWaitingSpans = 128;

/** The part of a tracer that begins spans. */
export type SpanSource = Pick<Tracer, "startSpan">;

/** Random ids, and those that a span has had before it became one of the SDK's. */
export interface SpanIds extends IdGenerator {
  /** What `start` begins gets the ids of `spanContext`. */
  reuse(spanContext: SpanContext, start: () => Span): Span;
}

export function createSpanIds(): SpanIds {
  const random = new RandomIdGenerator();
  let reused: SpanContext | undefined;
  return {
    generateTraceId: () => reused?.traceId ?? random.generateTraceId(),
    generateSpanId: () => reused?.spanId ?? random.generateSpanId(),
    reuse(spanContext, start) {
      reused = spanContext;
      try {
        return start();
      } finally {
        reused = undefined;
      }
    },
  };
}

/**
 * A trace that is let go unless something in it turns out to be worth keeping. Until then its spans cost what it takes to note
 * their names and times; when it is kept, they become spans of `tracer` with the same ids, those that have ended as well.
 */
export class ProvisionalTrace {
  readonly tracer: SpanSource;
  readonly ids: SpanIds;
  #traceId: string | undefined;
  /** Milliseconds from the zero of performance.now() to 1970: times within a trace then fit together to the microsecond. */
  readonly #epochMs = Date.now() - performance.now();
  /** In the order in which they began: a parent is there before its children. */
  #first: ProvisionalSpan | undefined;
  #last: ProvisionalSpan | undefined;
  #waiting = 0;
  #isKept = false;

  constructor(tracer: SpanSource, ids: SpanIds) {
    this.tracer = tracer;
    this.ids = ids;
  }

  /** Made when it is asked for: hardly any trace that is let go has been. */
  get traceId(): string {
    this.#traceId ??= this.ids.generateTraceId();
    return this.#traceId;
  }

  /** Milliseconds since 1970. */
  now(): number {
    return this.#epochMs + performance.now();
  }

  add(span: ProvisionalSpan): void {
    if (this.#isKept) return;
    this.#first ??= span;
    if (this.#last !== undefined) this.#last.next = span;
    this.#last = span;
    if (++this.#waiting > maxWaitingSpans) this.keep();
  }

  keep(): void {
    this.#isKept = true;
    let span = this.#first;
    this.#first = undefined;
    this.#last = undefined;
    for (; span !== undefined; span = span.next) span.become();
  }
}

/** A span of a {@link ProvisionalTrace}. An error status keeps the trace, and so does an event that is published or handled inside. */
export class ProvisionalSpan implements Span {
  /** The one of its trace that began after it, while they wait. */
  next: ProvisionalSpan | undefined;
  readonly #trace: ProvisionalTrace;
  #spanContext: SpanContext | undefined;
  readonly #name: string;
  readonly #options: SpanOptions;
  readonly #startTime: TimeInput;
  readonly #parent: ProvisionalSpan | undefined;
  /** What was said of it since, for the span of the SDK that it may become. */
  #attributes: Attributes | undefined;
  /** What else was done with it. */
  #changes: ((span: Span) => void)[] | undefined;
  #endTime: TimeInput | undefined;
  #become: Span | undefined;

  constructor(within: ProvisionalTrace, name: string, options: SpanOptions, parent?: ProvisionalSpan) {
    this.#trace = within;
    this.#name = name;
    this.#options = options;
    this.#startTime = options.startTime ?? within.now();
    this.#parent = parent;
    within.add(this);
  }

  /** A span with this one as its parent. */
  startChild(name: string, options: SpanOptions): Span {
    if (options.kind === SpanKind.PRODUCER || options.kind === SpanKind.CONSUMER) this.#trace.keep();
    if (this.#become === undefined) return new ProvisionalSpan(this.#trace, name, options, this);
    return this.#trace.tracer.startSpan(name, options, this.#context());
  }

  /** Makes it a span of the SDK, once its parent is one. */
  become(): void {
    const { tracer, ids } = this.#trace;
    const parent = this.#parent === undefined ? ROOT_CONTEXT : this.#parent.#context();
    const options = { ...this.#options, startTime: this.#startTime };
    const span = ids.reuse(this.spanContext(), () => tracer.startSpan(this.#name, options, parent));
    if (this.#attributes !== undefined) span.setAttributes(this.#attributes);
    for (const change of this.#changes ?? []) change(span);
    this.#attributes = undefined;
    this.#changes = undefined;
    this.#become = span;
    if (this.#endTime !== undefined) span.end(this.#endTime);
  }

  spanContext(): SpanContext {
    this.#spanContext ??= {
      traceId: this.#trace.traceId,
      spanId: this.#trace.ids.generateSpanId(),
      traceFlags: TraceFlags.SAMPLED,
    };
    return this.#spanContext;
  }

  isRecording(): boolean {
    return this.#endTime === undefined;
  }

  end(time: TimeInput = this.#trace.now()): void {
    if (this.#endTime !== undefined) return;
    this.#endTime = time;
    this.#become?.end(time);
  }

  setStatus(status: SpanStatus): this {
    this.#change((span) => span.setStatus(status));
    if (status.code === SpanStatusCode.ERROR) this.#trace.keep();
    return this;
  }

  setAttribute(key: string, value: AttributeValue): this {
    if (!this.isRecording()) return this;
    if (this.#become !== undefined) {
      this.#become.setAttribute(key, value);
      return this;
    }
    this.#attributes ??= {};
    this.#attributes[key] = value;
    return this;
  }

  setAttributes(attributes: Attributes): this {
    for (const [key, value] of Object.entries(attributes)) if (value !== undefined) this.setAttribute(key, value);
    return this;
  }

  addEvent(name: string, attributesOrTime?: Attributes | TimeInput, time?: TimeInput): this {
    const isTime = isTimeInput(attributesOrTime);
    const atMs = (isTime ? attributesOrTime : time) ?? this.#trace.now();
    const attributes = isTime ? undefined : attributesOrTime;
    return this.#change((span) => span.addEvent(name, attributes, atMs));
  }

  addLink(link: Link): this {
    return this.#change((span) => span.addLink(link));
  }

  addLinks(links: Link[]): this {
    return this.#change((span) => span.addLinks(links));
  }

  updateName(name: string): this {
    return this.#change((span) => span.updateName(name));
  }

  recordException(exception: Exception, time: TimeInput = this.#trace.now()): void {
    this.#change((span) => span.recordException(exception, time));
  }

  /** The context that its children begin in. */
  #context(): Context {
    return this.#become === undefined ? ROOT_CONTEXT : trace.setSpan(ROOT_CONTEXT, this.#become);
  }

  #change(change: (span: Span) => void): this {
    if (!this.isRecording()) return this;
    if (this.#become !== undefined) change(this.#become);
    else if (this.#changes === undefined) this.#changes = [change];
    else this.#changes.push(change);
    return this;
  }
}

function isTimeInput(value: Attributes | TimeInput | undefined): value is TimeInput {
  return typeof value === "number" || value instanceof Date || Array.isArray(value);
}

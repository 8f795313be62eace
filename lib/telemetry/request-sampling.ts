import { ROOT_CONTEXT, SamplingDecision, SpanKind, SpanStatusCode } from "@opentelemetry/api";
import { type ReadableSpan, type Span, type SpanProcessor, TraceIdRatioBasedSampler } from "@opentelemetry/sdk-trace";

/** Traces that wait for their end at a time; one that begins beyond that is kept. */
const maxUndecidedTraces = 1_000;
/** Spans of one trace that wait; a trace that has more is kept. */
const maxWaitingSpans = 128;

/** A trace of which it is not yet known whether it is worth keeping. */
interface Undecided {
  /** Spans that have begun and not ended. */
  open: number;
  readonly ended: ReadableSpan[];
}

/**
 * Keeps a share of the requests that only answer, such as predictions, and everything else: what failed, what published
 * or handled an event and so belongs to a run, and what is part of a caller's trace, where the caller decides.
 *
 * Whether a request fails is known at its end. Until then the spans of one that is not in the share wait here; then they
 * go on to `next`, or are let go. See docs/adr/0012-sampling-at-the-end.md.
 *
 * @param share Of the requests without a caller's trace, 0 to 1. Processes agree on which, by the trace's id.
 */
export function createRequestSampling(share: number, next: SpanProcessor): SpanProcessor {
  const sampler = new TraceIdRatioBasedSampler(share);
  const undecided = new Map<string, Undecided>();
  const inShare = (traceId: string) =>
    sampler.shouldSample(ROOT_CONTEXT, traceId).decision === SamplingDecision.RECORD_AND_SAMPLED;

  /** The waiting trace that a span belongs to, if it does. */
  function traceOf(span: Span): Undecided | undefined {
    const { traceId } = span.spanContext();
    const isRequest = span.kind === SpanKind.SERVER && span.parentSpanContext === undefined;
    if (isRequest && undecided.size < maxUndecidedTraces && !inShare(traceId)) {
      undecided.set(traceId, { open: 0, ended: [] });
    }
    return undecided.get(traceId);
  }

  return {
    onStart(span, parentContext) {
      next.onStart(span, parentContext);
      const trace = traceOf(span);
      if (trace !== undefined) trace.open++;
    },
    onEnd(span) {
      const { traceId } = span.spanContext();
      const trace = undecided.get(traceId);
      if (trace === undefined) return next.onEnd(span);
      trace.open--;
      trace.ended.push(span);
      if (isWorthKeeping(span) || trace.ended.length > maxWaitingSpans) {
        undecided.delete(traceId);
        for (const ended of trace.ended) next.onEnd(ended);
      } else if (trace.open === 0) {
        undecided.delete(traceId);
      }
    },
    forceFlush: () => next.forceFlush(),
    shutdown: () => next.shutdown(),
  };
}

function isWorthKeeping({ status, kind }: ReadableSpan): boolean {
  return status.code === SpanStatusCode.ERROR || kind === SpanKind.PRODUCER || kind === SpanKind.CONSUMER;
}

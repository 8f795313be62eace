import { context, SpanKind, trace } from "@opentelemetry/api";
import { ProvisionalSpan, ProvisionalTrace, type SpanIds, type SpanSource } from "./provisional-span.ts";

/**
 * Keeps a share of the requests that only answer, such as predictions, and everything else: what failed, what published
 * or handled an event and so belongs to a run, and what is part of a caller's trace, where the caller decides.
 *
 * Whether a request fails is known at its end, so the spans of one outside the share are noted until then.
 * See docs/adr/0012-sampling-at-the-end.md.
 *
 * @param share Of the requests without a caller's trace, 0 to 1.
 * @param tracer Makes the spans that are kept. Its provider takes its ids from `ids`.
 */
export function createRequestSampling(share: number, tracer: SpanSource, ids: SpanIds): SpanSource {
  return {
    startSpan(name, options = {}, parent = context.active()) {
      const outer = trace.getSpan(parent);
      if (outer instanceof ProvisionalSpan) return outer.startChild(name, options);
      const isRequest = options.kind === SpanKind.SERVER && outer === undefined;
      if (isRequest && Math.random() >= share) {
        return new ProvisionalSpan(new ProvisionalTrace(tracer, ids), name, options);
      }
      return tracer.startSpan(name, options, parent);
    },
  };
}

import { type CriticalPath, criticalPath, type PathSegment } from "./critical-path.ts";
import { labelOf } from "./labels.ts";
import type { SpanLink, TraceSpan } from "./otlp.ts";
import { type OutlineRow, outline } from "./outline.ts";
import { type TraceTree, treeFromSpans } from "./tree.ts";

/** A trace ready to be drawn, in the terminal or on a page. */
export interface TraceView {
  readonly traceId: string;
  /** Undefined for a trace that is no run's. */
  readonly runId: string | undefined;
  readonly tree: TraceTree;
  readonly path: CriticalPath;
  /** The segments of the critical path that belong to a span, by its id. */
  readonly segments: ReadonlyMap<string, readonly PathSegment[]>;
  readonly rows: readonly OutlineRow[];
  /** In the order in which they joined in. A service keeps its colour by its place here. */
  readonly services: readonly string[];
}

export function viewOf(
  spans: readonly TraceSpan[],
  { traceId, runId }: Pick<TraceView, "traceId" | "runId">,
): TraceView {
  const tree = treeFromSpans(spans);
  const ordered = [...spans].sort((one, other) => one.startMs - other.startMs);
  const services = [...new Set(ordered.map(({ service }) => service))];
  const path = criticalPath(tree);
  return { traceId, runId, tree, path, segments: segmentsBySpan(path), rows: outline(tree), services };
}

function segmentsBySpan({ segments }: CriticalPath): ReadonlyMap<string, readonly PathSegment[]> {
  const bySpan = new Map<string, PathSegment[]>();
  for (const segment of segments) {
    if (segment.span === undefined) continue;
    const { spanId } = segment.span;
    const others = bySpan.get(spanId);
    if (others === undefined) bySpan.set(spanId, [segment]);
    else others.push(segment);
  }
  return bySpan;
}

/** Whether a line's spans are on the critical path, or one of them is. */
export function isCritical({ path }: TraceView, { spans }: OutlineRow): boolean {
  return spans.some(({ spanId }) => path.spanIds.has(spanId));
}

/** What links point to apart from the parent: other traces, such as that of the run which trained a model. */
export function linksOf({ links, parentSpanId }: TraceSpan): readonly SpanLink[] {
  return links.filter(({ spanId }) => spanId !== parentSpanId);
}

/** What part of the critical path the spans of one name have. */
export interface PathShare {
  /** Undefined with an empty label for time in which no span was at work. */
  readonly service: string | undefined;
  readonly label: string;
  readonly ms: number;
  /** Of the whole path, 0 to 1. */
  readonly share: number;
}

/** Where the time went: the critical path by name, the largest part first. */
export function pathShares({ segments }: CriticalPath): PathShare[] {
  const parts = new Map<string, Omit<PathShare, "share">>();
  let wholeMs = 0;
  for (const { span, startMs, endMs } of segments) {
    const label = span === undefined ? "" : labelOf(span);
    const key = JSON.stringify([span?.service, label]);
    const ms = (parts.get(key)?.ms ?? 0) + endMs - startMs;
    parts.set(key, { service: span?.service, label, ms });
    wholeMs += endMs - startMs;
  }
  return [...parts.values()]
    .map((part) => ({ ...part, share: part.ms / wholeMs }))
    .sort((one, other) => other.ms - one.ms);
}

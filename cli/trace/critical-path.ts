import type { TraceSpan } from "./otlp.ts";
import { preorder, type SpanNode, type TraceTree } from "./tree.ts";

/** A piece of the critical path: what had to be waited for from `startMs` to `endMs`, in milliseconds since 1970. */
export interface PathSegment {
  /** The span at work; undefined where none was, such as while a message waited for its consumer. */
  readonly span: TraceSpan | undefined;
  readonly startMs: number;
  readonly endMs: number;
}

/** Where the time went between the beginning and the end of a trace. */
export interface CriticalPath {
  /** In order, none over another. */
  readonly segments: readonly PathSegment[];
  /** Ids of the spans that lie on it, those that only waited for their children included. */
  readonly spanIds: ReadonlySet<string>;
}

/**
 * The chain of spans that decided when the trace ended: shortening any of its segments would have ended it earlier.
 *
 * It is walked backwards from the latest end of all. At a time `t` in a span, the child that was waited for is the one that ended last at
 * or before `t`; the time between its end and `t` is the span's own. The walk goes on inside that child, and then, in the
 * span, from the time at which the child began. Children that were still at work at `t` are passed over: nobody waited for them.
 *
 * This is the method of CRISP (Zhang et al., "CRISP: Critical Path Analysis of Large-Scale Microservice Architectures",
 * USENIX ATC 2022) with one change for events. There a child ends within its parent. Here the consumer of a message begins after its
 * producer has ended, so a child counts as ended when everything below it has, or, where that was after `t`, when it has itself;
 * and time in which a span was over and its next descendant had not begun belongs to nobody. Several beginnings are walked as
 * the children of one that has no time of its own. Clocks that disagree make segments shorter, never overlapping.
 */
export function criticalPath(tree: TraceTree): CriticalPath {
  const tops = [...tree.roots, ...tree.orphans];
  const ends = endsOf(tops);
  const segments: PathSegment[] = [];
  const visited = new Set<SpanNode>();
  const stack: Visit[] = [visit(undefined, tops, ends)];
  let nowMs = tree.endMs;
  for (let current = stack.at(-1); current !== undefined; current = stack.at(-1)) {
    const child = lastEnded(current, { nowMs, ends, visited });
    const untilMs = child === undefined ? (current.span?.startMs ?? tree.startMs) : effectiveEnd(child, nowMs, ends);
    nowMs = addSegments(segments, current.span, { fromMs: untilMs, nowMs });
    if (child === undefined) stack.pop();
    else {
      visited.add(child);
      stack.push(visit(child.span, child.children, ends));
    }
  }
  segments.reverse();
  return { segments, spanIds: new Set([...visited].map(({ span }) => span.spanId)) };
}

/** A span of the walk, with its children by their ends, the latest last, so that the next candidate is popped. */
interface Visit {
  readonly span: TraceSpan | undefined;
  readonly byOwnEnd: SpanNode[];
  readonly byWholeEnd: SpanNode[];
}

/** When a node and everything below it had ended. */
type Ends = ReadonlyMap<SpanNode, number>;

function endsOf(tops: readonly SpanNode[]): Ends {
  const ends = new Map<SpanNode, number>();
  for (const node of preorder(tops).reverse()) {
    let end = node.span.endMs;
    for (const child of node.children) end = Math.max(end, ends.get(child) ?? end);
    ends.set(node, end);
  }
  return ends;
}

function visit(span: TraceSpan | undefined, children: readonly SpanNode[], ends: Ends): Visit {
  const wholeEnd = (node: SpanNode) => ends.get(node) ?? node.span.endMs;
  return {
    span,
    byOwnEnd: [...children].sort((one, other) => one.span.endMs - other.span.endMs),
    byWholeEnd: [...children].sort((one, other) => wholeEnd(one) - wholeEnd(other)),
  };
}

/** Clocks tick in milliseconds: what followed on a span may seem to have begun as much before its end. */
const tickMs = 1;

function effectiveEnd(node: SpanNode, nowMs: number, ends: Ends): number {
  const wholeEnd = ends.get(node) ?? node.span.endMs;
  return Math.min(nowMs, wholeEnd <= nowMs + tickMs ? wholeEnd : node.span.endMs);
}

interface Walk {
  readonly nowMs: number;
  readonly ends: Ends;
  readonly visited: ReadonlySet<SpanNode>;
}

/** The child that had ended last at this time. Candidates that are too late now stay so, since the walk goes back in time. */
function lastEnded({ byOwnEnd, byWholeEnd }: Visit, { nowMs, ends, visited }: Walk): SpanNode | undefined {
  const dropWhile = (nodes: SpanNode[], endOf: (node: SpanNode) => number) => {
    for (let last = nodes.at(-1); last !== undefined; last = nodes.at(-1)) {
      const ended = last.span.startMs <= nowMs && endOf(last) <= nowMs + tickMs;
      if (ended && !visited.has(last)) return last;
      nodes.pop();
    }
    return undefined;
  };
  const own = dropWhile(byOwnEnd, ({ span }) => span.endMs);
  const whole = dropWhile(byWholeEnd, (node) => ends.get(node) ?? node.span.endMs);
  if (own === undefined || whole === undefined) return own ?? whole;
  return effectiveEnd(whole, nowMs, ends) >= effectiveEnd(own, nowMs, ends) ? whole : own;
}

/** Adds what lies between two times, the later first: nobody's time after the span's end, then the span's own. Returns the earlier time. */
function addSegments(
  segments: PathSegment[],
  span: TraceSpan | undefined,
  { fromMs, nowMs }: { readonly fromMs: number; readonly nowMs: number },
): number {
  const add = (who: TraceSpan | undefined, startMs: number, endMs: number) => {
    if (endMs > startMs) segments.push({ span: who, startMs, endMs });
  };
  const ownEndMs = span === undefined ? fromMs : Math.min(nowMs, Math.max(fromMs, span.endMs));
  const ownStartMs = span === undefined ? fromMs : Math.min(ownEndMs, Math.max(fromMs, span.startMs));
  add(undefined, ownEndMs, nowMs);
  add(span, ownStartMs, ownEndMs);
  add(undefined, fromMs, ownStartMs);
  return Math.min(nowMs, fromMs);
}

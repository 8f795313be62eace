import type { TraceSpan } from "./otlp.ts";

/** A span with what happened because of it, in the order in which it began. */
export interface SpanNode {
  readonly span: TraceSpan;
  readonly children: readonly SpanNode[];
}

/** The spans of one trace, assembled. There are several roots where there are several beginnings. */
export interface TraceTree {
  /** Spans that have no parent. */
  readonly roots: readonly SpanNode[];
  /** Spans whose parent was not found: its process was killed before it wrote, or its file is not here. */
  readonly orphans: readonly SpanNode[];
  /** Earliest start and latest end of all spans, in milliseconds since 1970. */
  readonly startMs: number;
  readonly endMs: number;
  readonly spanCount: number;
}

interface GrowingNode extends SpanNode {
  readonly children: GrowingNode[];
}

/**
 * Assembles the spans of one trace. A span that is there twice counts once. Nothing recurses, so a trace may be as deep
 * as it likes; parents that form a circle, which no tracer writes, are cut open at their earliest span.
 */
export function treeFromSpans(spans: Iterable<TraceSpan>): TraceTree {
  const nodes = new Map<string, GrowingNode>();
  for (const span of spans) nodes.set(span.spanId, { span, children: [] });
  const ordered = [...nodes.values()].sort(byStart);
  const roots: GrowingNode[] = [];
  const orphans: GrowingNode[] = [];
  for (const node of ordered) {
    const { parentSpanId } = node.span;
    if (parentSpanId === "") roots.push(node);
    else (nodes.get(parentSpanId)?.children ?? orphans).push(node);
  }
  const reached = new Set<GrowingNode>();
  for (const node of [...roots, ...orphans]) reach(node, reached);
  for (const node of ordered) {
    if (reached.has(node)) continue;
    const siblings = nodes.get(node.span.parentSpanId)?.children ?? [];
    siblings.splice(siblings.indexOf(node), 1);
    orphans.push(node);
    reach(node, reached);
  }
  let endMs = Number.NEGATIVE_INFINITY;
  for (const { span } of ordered) endMs = Math.max(endMs, span.endMs);
  return { roots, orphans, startMs: ordered[0]?.span.startMs ?? 0, endMs, spanCount: ordered.length };
}

function reach(from: GrowingNode, reached: Set<GrowingNode>): void {
  const waiting = [from];
  for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
    reached.add(node);
    for (const child of node.children) waiting.push(child);
  }
}

/** Of two that begin together the longer one first: what it encloses comes after it. */
function byStart(one: SpanNode, other: SpanNode): number {
  return one.span.startMs - other.span.startMs || other.span.endMs - one.span.endMs;
}

/** Every node below the given ones, and these, each before its children. */
export function preorder(roots: readonly SpanNode[]): SpanNode[] {
  const all: SpanNode[] = [];
  const waiting = [...roots].reverse();
  for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
    all.push(node);
    for (let index = node.children.length - 1; index >= 0; index--) waiting.push(node.children[index] as SpanNode);
  }
  return all;
}

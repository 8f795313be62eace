import { labelOf } from "./labels.ts";
import type { TraceSpan } from "./otlp.ts";
import { preorder, type SpanNode, type TraceTree } from "./tree.ts";

/** A line of the waterfall. Lines come in the order of the tree, each before what lies below it. */
export interface OutlineRow {
  /**
   * One span; or many equal siblings in one line, which follow one level deeper with all that is below them; or the
   * place where the parents of the spans below should be.
   */
  readonly kind: "span" | "group" | "orphans";
  readonly depth: number;
  /** One for a span, several for a group, none for missing parents. */
  readonly spans: readonly TraceSpan[];
  /** Whether another service works here than in the line above it in the tree. */
  readonly takesOver: boolean;
}

/** Equal siblings from this number on become a group where each is too short to be seen. */
const fewestShort = 4;
/** Too short to be seen is up to this share of the whole trace. */
const shortShare = 0.01;
/** More equal siblings than that become a group however long they are. */
const mostLong = 20;

interface Entry {
  readonly node: SpanNode;
  readonly depth: number;
  readonly takesOver: boolean;
}

/**
 * The tree as lines from top to bottom. Siblings are equal if they have the same name, service, kind and error; only
 * those are put together below which nothing goes to another service or fails.
 */
export function outline(tree: TraceTree): OutlineRow[] {
  const rows: OutlineRow[] = [];
  const plain = plainNodes(tree);
  const waiting: (Entry | OutlineRow)[] = [];
  const push = (children: readonly SpanNode[], depth: number, parentService?: string) => {
    const arrangement = { plain, depth, parentService, traceMs: tree.endMs - tree.startMs };
    for (const item of arrange(children, arrangement).reverse()) waiting.push(item);
  };
  if (tree.orphans.length > 0) {
    push(tree.orphans, 1);
    waiting.push({ kind: "orphans", depth: 0, spans: [], takesOver: false });
  }
  push(tree.roots, 0);
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    if ("kind" in next) rows.push(next);
    else {
      const { node, ...place } = next;
      rows.push({ kind: "span", spans: [node.span], ...place });
      push(node.children, next.depth + 1, node.span.service);
    }
  }
  return rows;
}

/** Nodes whose whole subtree stays in one service, hands nothing on and has no error below its top. */
function plainNodes({ roots, orphans }: TraceTree): ReadonlySet<SpanNode> {
  const plain = new Set<SpanNode>();
  for (const node of preorder([...roots, ...orphans]).reverse()) {
    const ok = node.children.every(
      (child) => plain.has(child) && child.span.service === node.span.service && child.span.error === undefined,
    );
    if (ok && node.span.kind !== "consumer") plain.add(node);
  }
  return plain;
}

interface Arrangement {
  readonly plain: ReadonlySet<SpanNode>;
  readonly depth: number;
  readonly parentService: string | undefined;
  readonly traceMs: number;
}

/** Siblings in their order, with each group at the place of its first. */
function arrange(children: readonly SpanNode[], arrangement: Arrangement): (Entry | OutlineRow)[] {
  const { plain, depth, parentService, traceMs } = arrangement;
  const alike = new Map<string, SpanNode[]>();
  for (const node of children) {
    const key = plain.has(node) ? likeness(node.span) : node.span.spanId;
    const members = alike.get(key);
    if (members === undefined) alike.set(key, [node]);
    else members.push(node);
  }
  const grouped = [...alike.values()].filter((members) => isGroup(members, traceMs));
  const groupOf = new Map(grouped.flatMap((members) => members.map((member) => [member, members] as const)));
  return children.flatMap((node): (Entry | OutlineRow)[] => {
    const takesOver = node.span.service !== parentService;
    const members = groupOf.get(node);
    if (members === undefined) return [{ node, depth, takesOver }];
    if (members[0] !== node) return [];
    const group: OutlineRow = { kind: "group", depth, takesOver, spans: members.map(({ span }) => span) };
    return [group, ...members.map((member) => ({ node: member, depth: depth + 1, takesOver: false }))];
  });
}

function likeness(span: TraceSpan): string {
  return JSON.stringify([span.service, span.kind, labelOf(span), span.error]);
}

function isGroup(members: readonly SpanNode[], traceMs: number): boolean {
  if (members.length > mostLong) return true;
  return (
    members.length >= fewestShort && members.every(({ span }) => span.endMs - span.startMs <= shortShare * traceMs)
  );
}

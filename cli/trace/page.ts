import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { count, percent } from "../format.ts";
import { attemptOf, duration, errorOf, labelOf, noteOf } from "./labels.ts";
import type { Attributes, TraceSpan } from "./otlp.ts";
import type { OutlineRow } from "./outline.ts";
import { isCritical, linksOf, pathShares, type TraceView } from "./view.ts";

/** A time on the page: start and end in milliseconds from the beginning of the trace. */
type Interval = readonly [startMs: number, endMs: number];

/** A line of the page, as its script reads it. */
interface PageRow {
  readonly kind: OutlineRow["kind"];
  readonly depth: number;
  readonly label: string;
  readonly note: string;
  /** Place of the service among the page's services; -1 for a line that is no span. */
  readonly service: number;
  readonly time: string;
  readonly critical: boolean;
  readonly takesOver: boolean;
  readonly attempt: number;
  /** Empty for what did not fail. */
  readonly error: string;
  readonly bars: readonly Interval[];
  readonly path: readonly Interval[];
  readonly details?: SpanDetails;
}

interface SpanDetails {
  readonly facts: Attributes;
  readonly attributes: Attributes;
  readonly events: readonly { readonly title: string; readonly attributes: Attributes }[];
  readonly links: readonly { readonly title: string; readonly attributes: Attributes }[];
}

/** Bars closer together than this share of the trace become one: nobody could tell them apart. */
const finestGap = 1 / 2_000;

/**
 * The waterfall as one page that needs nothing else: styles, script and data are inside, and its policy allows the
 * browser to load nothing. All text from the trace is data, which the script shows as text and never as markup.
 */
export function htmlPage(view: TraceView): string {
  const [style, script] = [asset("page.css"), asset("page.js")];
  const policy = `default-src 'none'; base-uri 'none'; form-action 'none'; style-src '${hash(style)}'; script-src '${hash(script)}'`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>${escapeHtml(titleOf(view))}</title>
<style>${style}</style>
</head>
<body>
<noscript>This page draws the trace with a script that is inside it; allow it to run.</noscript>
<script type="application/json" id="trace">${escapeJson(JSON.stringify(pageData(view)))}</script>
<script>${script}</script>
</body>
</html>
`;
}

function titleOf({ runId, traceId }: TraceView): string {
  return runId === undefined ? `Trace ${traceId}` : `Run ${runId}`;
}

function pageData(view: TraceView) {
  const { tree, services, rows, traceId } = view;
  const began = new Date(tree.startMs).toISOString().replace("T", " ").slice(0, 19);
  return {
    title: titleOf(view),
    subtitle: `${duration(tree.endMs - tree.startMs)} · ${count(tree.spanCount)} spans · ${began} UTC · trace ${traceId}`,
    wholeMs: tree.endMs - tree.startMs,
    services,
    shares: pathShares(view.path).map(({ service, label, ms, share }) => ({
      service: service === undefined ? -1 : services.indexOf(service),
      label: service === undefined ? "waiting" : label,
      share,
      text: `${duration(ms)}, ${percent(share)}`,
    })),
    rows: rows.map((row) => pageRow(view, row)),
  };
}

function pageRow(view: TraceView, row: OutlineRow): PageRow {
  const { tree, segments, services } = view;
  const [span] = row.spans;
  const intervals = (times: readonly { readonly startMs: number; readonly endMs: number }[]) =>
    merged(
      times.map(({ startMs, endMs }): Interval => [startMs - tree.startMs, endMs - tree.startMs]),
      (tree.endMs - tree.startMs) * finestGap,
    );
  return {
    kind: row.kind,
    depth: row.depth,
    label: span === undefined ? "(parent not in these files)" : labelOf(span),
    note: noteOf(row.spans),
    service: span === undefined ? -1 : services.indexOf(span.service),
    time: span === undefined ? "" : duration(row.spans.reduce((sum, { startMs, endMs }) => sum + endMs - startMs, 0)),
    critical: isCritical(view, row),
    takesOver: row.takesOver,
    attempt: span === undefined ? 1 : attemptOf(span),
    error: span?.error === undefined ? "" : errorOf(span),
    bars: intervals(row.spans),
    path: intervals(row.spans.flatMap(({ spanId }) => segments.get(spanId) ?? [])),
    ...(row.kind === "span" && span !== undefined && { details: detailsOf(span, tree.startMs) }),
  };
}

/** Intervals in order, those that touch or nearly do as one. */
function merged(intervals: readonly Interval[], gapMs: number): Interval[] {
  const result: Interval[] = [];
  for (const [startMs, endMs] of [...intervals].sort(([one], [other]) => one - other)) {
    const last = result.at(-1);
    if (last !== undefined && startMs - last[1] < gapMs)
      result[result.length - 1] = [last[0], Math.max(last[1], endMs)];
    else result.push([startMs, endMs]);
  }
  return result;
}

function detailsOf(span: TraceSpan, traceStartMs: number): SpanDetails {
  const { name, kind, service, spanId, parentSpanId, startMs, endMs } = span;
  return {
    facts: {
      span: name,
      kind,
      service,
      began: `${duration(startMs - traceStartMs)} after the trace`,
      took: duration(endMs - startMs),
      id: spanId,
      ...(parentSpanId !== "" && { parent: parentSpanId }),
    },
    attributes: span.attributes,
    events: span.events.map(({ name: event, timeMs, attributes }) => ({
      title: `${event}, ${duration(timeMs - startMs)} after its start`,
      attributes,
    })),
    links: linksOf(span).map(({ traceId, spanId: id, attributes }) => ({
      title: `trace ${traceId}, span ${id}`,
      attributes,
    })),
  };
}

function asset(name: string): string {
  return readFileSync(new URL(`page/${name}`, import.meta.url), "utf8");
}

function hash(text: string): string {
  return `sha256-${createHash("sha256").update(text).digest("base64")}`;
}

function escapeHtml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}

/** JSON that cannot end the element around it. */
function escapeJson(json: string): string {
  return json.replaceAll("<", "\\u003c");
}

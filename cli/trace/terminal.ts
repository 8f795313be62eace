import { styleText } from "node:util";
import { count, createStyle, percent, type Style } from "../format.ts";
import { attemptOf, duration, errorOf, labelOf, noteOf } from "./labels.ts";
import type { SpanLink, TraceSpan } from "./otlp.ts";
import type { OutlineRow } from "./outline.ts";
import { columnsOf, fitted, printable, wrapped } from "./text-width.ts";
import { isCritical, linksOf, pathShares, type TraceView } from "./view.ts";

export interface TerminalOptions {
  /** Columns, 32 at least; no line is wider. */
  readonly width: number;
  readonly colors: boolean;
  /** Draws each member of a group as well. */
  readonly all: boolean;
}

const serviceColors = [
  "cyan",
  "magenta",
  "yellow",
  "blue",
  "green",
  "cyanBright",
  "magentaBright",
  "yellowBright",
] as const;
const criticalMark = "▎";
const durationColumns = 9;
const sharesShown = 8;

/** How a trace is drawn: measures and colours. */
interface Canvas extends TerminalOptions {
  readonly view: TraceView;
  readonly style: Style;
  readonly nameColumns: number;
  readonly barColumns: number;
  /** The lines that are drawn. */
  readonly rows: readonly OutlineRow[];
  service(name: string, text: string): string;
}

/** The waterfall of a trace as lines for a terminal, with where the time went below it. */
export function terminalLines(view: TraceView, options: TerminalOptions): string[] {
  const canvas = createCanvas(view, options);
  return [
    ...header(canvas),
    "",
    axis(canvas),
    ...canvas.rows.flatMap((row) => rowLines(canvas, row)),
    "",
    ...summary(canvas),
  ];
}

function createCanvas(view: TraceView, options: TerminalOptions): Canvas {
  const rows = options.all ? view.rows : unfolded(view.rows);
  let wanted = 0;
  for (const row of rows) wanted = Math.max(wanted, row.depth * 2 + columnsOf(nameOf(row).join(" ")));
  const nameColumns = Math.min(Math.max(wanted, 12), Math.floor(options.width * 0.5));
  const barColumns = Math.max(4, options.width - 2 - nameColumns - durationColumns - 1);
  const colorOf = (name: string) => serviceColors[view.services.indexOf(name) % serviceColors.length] ?? "cyan";
  const service = (name: string, text: string) =>
    options.colors ? styleText(colorOf(name), text, { validateStream: false }) : text;
  return { ...options, view, style: createStyle(options.colors), nameColumns, barColumns, rows, service };
}

/** Without what lies below a group. */
function unfolded(rows: readonly OutlineRow[]): OutlineRow[] {
  let groupDepth = Number.POSITIVE_INFINITY;
  return rows.filter(({ kind, depth }) => {
    if (depth > groupDepth) return false;
    groupDepth = kind === "group" ? depth : Number.POSITIVE_INFINITY;
    return true;
  });
}

function header({ view, style, width, service }: Canvas): string[] {
  const { tree, runId, traceId, services } = view;
  const began = new Date(tree.startMs).toISOString().replace("T", " ").slice(0, 19);
  const facts = `${duration(tree.endMs - tree.startMs)}, ${count(tree.spanCount)} spans, began ${began} UTC`;
  const title = runId === undefined ? [] : wrapped(`Run ${printable(runId)}`, width).map(style.bold);
  const names = services.map((name) => service(name, fitted(`■ ${printable(name)}`, Math.min(width, 14)).trimEnd()));
  return [
    ...title,
    ...wrapped(`trace ${traceId}`, width).map(style.dim),
    ...wrapped(facts, width).map(style.dim),
    ...inRows(names, width),
    ...wrapped(`${criticalMark} █ critical path   ░ other time`, width).map(style.dim),
  ];
}

/** Coloured words side by side, as many as a line holds. */
function inRows(words: readonly string[], width: number): string[] {
  const perLine = Math.max(1, Math.floor(width / 16));
  const lines: string[] = [];
  for (let start = 0; start < words.length; start += perLine)
    lines.push(words.slice(start, start + perLine).join("  "));
  return lines;
}

function axis({ view: { tree }, nameColumns, barColumns, style }: Canvas): string {
  const wholeMs = tree.endMs - tree.startMs;
  // The last mark ends where the axis does, so there has to be room for two before that.
  const longest = duration(wholeMs).length;
  const marks = barColumns > 8 * longest + 4 ? 4 : barColumns > 4 * longest + 2 ? 2 : 1;
  let line = "";
  for (let mark = marks === 1 ? 1 : 0; mark <= marks; mark++) {
    const text = duration((wholeMs * mark) / marks);
    const at = mark === marks ? barColumns - text.length : Math.round((barColumns * mark) / marks);
    if (at >= line.length + (mark === 0 ? 0 : 1)) line = line.padEnd(at) + text;
  }
  return style.dim(" ".repeat(nameColumns + durationColumns + 3) + line.slice(0, barColumns));
}

/** The name of a line, and what else there is to say. */
function nameOf(row: OutlineRow): [label: string, note: string] {
  const [span] = row.spans;
  if (span === undefined) return ["(parent not in these files)", ""];
  const attempt = attemptOf(span);
  const parts = [row.takesOver ? span.service : "", attempt > 1 ? `↻ try ${attempt}` : "", noteOf(row.spans)];
  return [printable(labelOf(span)), printable(parts.filter(Boolean).join(", "))];
}

function rowLines(canvas: Canvas, row: OutlineRow): string[] {
  const { view, style, nameColumns, service } = canvas;
  const [span] = row.spans;
  const [label, note] = nameOf(row);
  const indent = " ".repeat(Math.min(row.depth * 2, Math.floor(nameColumns / 2)));
  const cell = fitted(`${indent}${label} ${note}`, nameColumns);
  if (span === undefined) return [style.dim(`  ${cell.trimEnd()}`)];
  const critical = isCritical(view, row);
  const name = cell.slice(0, indent.length + label.length);
  const totalMs = row.spans.reduce((sum, { startMs, endMs }) => sum + endMs - startMs, 0);
  const mark = span.error !== undefined ? style.bad("✗") : critical ? style.bold(criticalMark) : " ";
  const noteStyle = attemptOf(span) > 1 ? style.bold : style.dim;
  const line = [
    `${mark} ${service(span.service, row.takesOver ? style.bold(name) : name)}${noteStyle(cell.slice(name.length))}`,
    duration(totalMs).padStart(durationColumns),
    ` ${service(span.service, bar(canvas, row.spans))}`,
  ].join("");
  return [line, ...remarks(canvas, row, `  ${indent}`)];
}

/** Lines below a line: what failed, and what it is linked to. */
function remarks({ width, style }: Canvas, { kind, spans: [span] }: OutlineRow, indent: string): string[] {
  if (span === undefined) return [];
  const below = (text: string, paint: (line: string) => string) =>
    wrapped(printable(text), Math.max(8, width - indent.length)).map((line) => indent + paint(line));
  const links = kind === "group" ? [] : linksOf(span);
  return [
    ...(span.error === undefined ? [] : below(`✗ ${errorOf(span)}`, style.bad)),
    ...links.flatMap((link) => below(`↗ ${linkText(link)}`, style.dim)),
  ];
}

function linkText({ traceId, attributes }: SpanLink): string {
  const runId = attributes["millrace.run.id"];
  return runId === undefined ? `trace ${traceId}` : `run ${runId}, trace ${traceId}`;
}

const cells = { none: 0, tick: 1, beside: 2, criticalTick: 3, critical: 4 } as const;
const cellText = [" ", "▏", "░", "▌", "█"];

/** Spans on the time axis: full blocks on the critical path, light ones beside it, a line for what is shorter than half a column. */
function bar({ view: { tree, segments }, barColumns }: Canvas, spans: readonly TraceSpan[]): string {
  const msPerColumn = (tree.endMs - tree.startMs) / barColumns || 1;
  const drawn = new Uint8Array(barColumns);
  const draw = (startMs: number, endMs: number, [short, long]: readonly [number, number]) => {
    const first = Math.min(barColumns - 1, Math.floor((startMs - tree.startMs) / msPerColumn));
    const last = Math.min(barColumns - 1, Math.max(first, Math.ceil((endMs - tree.startMs) / msPerColumn) - 1));
    const value = endMs - startMs < msPerColumn / 2 ? short : long;
    for (let column = first; column <= last; column++) drawn[column] = Math.max(drawn[column] ?? 0, value);
  };
  for (const { startMs, endMs } of spans) draw(startMs, endMs, [cells.tick, cells.beside]);
  for (const { spanId } of spans)
    for (const { startMs, endMs } of segments.get(spanId) ?? [])
      draw(startMs, endMs, [cells.criticalTick, cells.critical]);
  return Array.from(drawn, (value) => cellText[value])
    .join("")
    .trimEnd();
}

function summary({ view, style, width, service, all }: Canvas): string[] {
  const shares = pathShares(view.path);
  const rest = shares.slice(sharesShown);
  const restMs = rest.reduce((sum, { ms }) => sum + ms, 0);
  const lineOf = (ms: number, part: number, text: string) =>
    `  ${duration(ms).padStart(9)} ${percent(part).padStart(7)}  ${text}`;
  const textColumns = Math.max(8, width - 21);
  const named = (label: string, name: string | undefined) => {
    const text = name === undefined ? "waiting: no span was at work" : `${printable(label)} (${printable(name)})`;
    const cut = fitted(text, textColumns).trimEnd();
    return name === undefined ? style.dim(cut) : service(name, cut);
  };
  return [
    ...wrapped("Critical path: where the time went", width).map(style.bold),
    ...shares.slice(0, sharesShown).map(({ ms, share, label, service: name }) => lineOf(ms, share, named(label, name))),
    ...(rest.length === 0
      ? []
      : [
          lineOf(
            restMs,
            rest.reduce((sum, { share }) => sum + share, 0),
            `${rest.length} others`,
          ),
        ]),
    ...(all || !view.rows.some(({ kind }) => kind === "group")
      ? []
      : wrapped("Equal spans share a line; --all shows each.", width).map(style.dim)),
  ];
}

/**
 * Records a command in a terminal as an SVG that moves: `node --import tsx scripts/record-terminal.ts docs/images/start.svg npm --silent start -- --exit`
 *
 * util-linux's `script` runs the command in a real terminal and keeps what it writes and when. This file replays that on
 * a small screen of its own and draws each line once for every text that it showed. Times are shortened, texts are not.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [target, ...command] = process.argv.slice(2);
if (target === undefined || command.length === 0) throw new Error("usage: record-terminal.ts FILE.svg COMMAND ...");

const columns = 118;
/** The recording is shown so many times as fast as it happened, and no pause is longer than that. */
const speed = 3;
const longestPauseSeconds = 1;
const lineHeight = 17;
const characterWidth = 7.8;
const colors: Readonly<Record<string, string>> = { "31": "#ff7b72", "32": "#7ee787", "36": "#79c0ff", "2": "#8b949e" };

interface Chunk {
  readonly atSeconds: number;
  readonly text: string;
}

/** A piece of a line in one style. */
interface Piece {
  readonly text: string;
  readonly style: string;
}

/** What a line of the screen showed, and from when until when. */
interface Shown {
  readonly row: number;
  readonly pieces: readonly Piece[];
  readonly from: number;
  until: number;
}

const prompt = `$ ${command.join(" ").replace("--silent ", "")}\n\n`;
const shown = replay([{ atSeconds: 0, text: prompt }, ...record(command)]);
writeFileSync(target, draw(shown));
console.log(`${target}: ${shown.length} lines`);

function record(words: readonly string[]): Chunk[] {
  const folder = mkdtempSync(join(tmpdir(), "millrace-recording-"));
  try {
    const [output, timing] = [join(folder, "output"), join(folder, "timing")];
    const line = `stty cols ${columns} rows 60; ${words.join(" ")}`;
    const env = { ...process.env, TERM: "xterm-256color", FORCE_COLOR: "1" };
    execFileSync("script", ["-q", "-e", "-c", line, "-O", output, "-T", timing], {
      stdio: ["ignore", "inherit", "inherit"],
      env,
    });
    return chunks(readFileSync(output), readFileSync(timing, "utf8"));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function chunks(output: Buffer, timing: string): Chunk[] {
  // `script` puts a line of its own before what the command writes.
  let offset = output.indexOf("\n") + 1;
  let atSeconds = 0;
  const decoder = new TextDecoder();
  return timing
    .trim()
    .split("\n")
    .map((line) => line.split(" ").slice(-2).map(Number))
    .map(([pause = 0, bytes = 0]) => {
      atSeconds += Math.min(pause / speed, longestPauseSeconds);
      const text = decoder.decode(output.subarray(offset, offset + bytes), { stream: true });
      offset += bytes;
      return { atSeconds, text };
    });
}

/** The few control sequences that our commands write: cursor up, erase below, colours. */
function replay(recording: readonly Chunk[]): Shown[] {
  const lines: Piece[][] = [[]];
  const history: Shown[] = [];
  const present = new Map<number, Shown>();
  const end = (recording.at(-1)?.atSeconds ?? 0) + longestPauseSeconds;
  let row = 0;
  let style = "";
  for (const { atSeconds, text } of recording) {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the control sequences of terminals
    for (const [token, parameter, kind] of text.matchAll(/\x1b\[([0-9;?]*)([A-Za-z])|\r?\n|\r|[^\x1b\r\n]+/g)) {
      if (kind === "A") row = Math.max(0, row - Number(parameter || 1));
      else if (kind === "J") lines.length = row;
      else if (kind === "m") style = /^(0|22|39|)$/.test(parameter ?? "") ? "" : (parameter ?? "");
      else if (token.endsWith("\n")) row++;
      lines[row] ??= [];
      if (kind === undefined && !/^[\r\n]/.test(token)) lines[row]?.push({ text: token, style });
    }
    noteChanges(lines, present, history, atSeconds);
  }
  for (const line of present.values()) line.until = end;
  return history.filter(({ from, until }) => until > from);
}

function noteChanges(
  lines: readonly (readonly Piece[])[],
  present: Map<number, Shown>,
  history: Shown[],
  atSeconds: number,
): void {
  for (let row = 0; row < Math.max(lines.length, present.size); row++) {
    const pieces = [...(lines[row] ?? [])];
    const before = present.get(row);
    if (JSON.stringify(before?.pieces ?? []) === JSON.stringify(pieces)) continue;
    if (before !== undefined) before.until = atSeconds;
    const line = { row, pieces, from: atSeconds, until: atSeconds };
    present.set(row, line);
    history.push(line);
  }
}

function draw(lines: readonly Shown[]): string {
  const end = Math.max(...lines.map(({ until }) => until));
  const rows = Math.max(...lines.filter(({ pieces }) => pieces.length > 0).map(({ row }) => row)) + 1;
  const [width, height] = [Math.round(columns * characterWidth) + 32, rows * lineHeight + 32];
  const texts = lines.filter(({ pieces }) => pieces.length > 0).map((line) => drawLine(line, end));
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">
<title>${escapeXml(command.join(" ").replace("--silent ", ""))}</title>
<rect width="${width}" height="${height}" rx="8" fill="#0d1117"/>
<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="13" fill="#e6edf3">
${texts.join("\n")}
</g>
</svg>
`;
}

/** A line that stays to the end is drawn in any viewer; others appear only where the picture moves. */
function drawLine({ row, pieces, from, until }: Shown, end: number): string {
  const spans = pieces.map(({ text, style }) => `<tspan${attributes(style)}>${escapeXml(text)}</tspan>`).join("");
  const stays = until >= end;
  const show = `<set attributeName="visibility" to="visible" begin="${from.toFixed(2)}s" dur="${(until - from).toFixed(2)}s"/>`;
  const hideFirst =
    from === 0 ? "" : `<set attributeName="visibility" to="hidden" begin="0s" dur="${from.toFixed(2)}s"/>`;
  const y = Math.round(16 + (row + 0.8) * lineHeight);
  return `<text x="16" y="${y}"${stays ? "" : ' visibility="hidden"'}>${spans}${stays ? hideFirst : show}</text>`;
}

function attributes(style: string): string {
  if (style === "1") return ' font-weight="bold"';
  const color = colors[style];
  return color === undefined ? "" : ` fill="${color}"`;
}

/** Spaces that do not break, since browsers fold the others. */
function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(" ", "\u00a0");
}

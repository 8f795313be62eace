import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { count, shortPath } from "../format.ts";
import { foldersIn } from "../start/session.ts";
import { chooseTrace, readTrace, surveyFiles, traceFilesIn } from "./files.ts";
import { openFile } from "./open-file.ts";
import { parseTraceOptions, type TraceOptions, traceUsage } from "./options.ts";
import { htmlPage } from "./page.ts";
import { terminalLines } from "./terminal.ts";
import { type TraceView, viewOf } from "./view.ts";

/** A narrower terminal breaks lines itself. */
const narrowest = 32;
/** Where no terminal tells its width. */
const defaultColumns = 100;

/** `npm run trace`: draws the trace of a run in the terminal or as a page. */
export async function trace(args: string[]): Promise<void> {
  const options = parseTraceOptions(args);
  if (options === undefined) return console.log(traceUsage);
  const { traces } = foldersIn(options.home);
  const files = options.files.length > 0 ? options.files : await traceFilesIn(traces);
  const survey = await surveyFiles(files);
  const chosen = chooseTrace(survey, options.wanted);
  const view = viewOf(await readTrace(files, chosen.traceId), chosen);
  if (survey.brokenLines > 0) {
    const left = `left out, since they are no OTLP JSON (a killed process leaves half a line): ${count(survey.brokenLines)}`;
    console.error(`Lines ${left}`);
  }
  if (options.html !== undefined || options.open) await writePage(view, options);
  else print([...draw(view, options), "", ...jaegerHint(options, traces)]);
}

function draw(view: TraceView, { all }: TraceOptions): string[] {
  const { isTTY, columns } = process.stdout;
  const width = Math.max(narrowest, columns ?? (Number(process.env.COLUMNS) || defaultColumns));
  return terminalLines(view, { width, colors: isTTY === true && !process.env.NO_COLOR, all });
}

function print(lines: readonly string[]): void {
  // A pager or `head` that has seen enough closes the pipe: no failure.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
  });
  process.stdout.write(`${lines.join("\n")}\n`);
}

async function writePage(view: TraceView, { html, open }: TraceOptions): Promise<void> {
  const path = html ?? join(await mkdtemp(join(tmpdir(), "millrace-trace-")), "trace.html");
  await writeFile(path, htmlPage(view));
  if (!open) return console.log(`The trace is in ${shortPath(path)}; open it in any browser.`);
  const opener = await openFile(path);
  const missing = opener.started ? "" : ` Nothing here opens it (${opener.program} is missing): open it by hand.`;
  console.log(`The trace is in ${shortPath(path)}.${missing}`);
}

function jaegerHint({ files }: TraceOptions, folder: string): string[] {
  const read = files.length > 0 ? files.map(shortPath).join(" ") : `$(ls -r ${shortPath(folder)}/*)`;
  return [
    "In Jaeger v2, choose Upload on its page (port 16686) and give it traces.jsonl:",
    `  cat ${read} > traces.jsonl`,
  ];
}

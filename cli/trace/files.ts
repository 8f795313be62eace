import { open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { AppError } from "../../lib/errors.ts";
import { spansFromOtlpLine, type TraceSpan } from "./otlp.ts";

/**
 * The trace files of a folder: `x.jsonl` and the older `x.jsonl.1`, `.2`, ... PATH_NOT_FOUND if there is none.
 */
export async function traceFilesIn(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return [];
    throw error;
  });
  const files = names.filter((name) => /\.jsonl(\.\d+)?$/.test(name)).sort();
  if (files.length > 0) return files.map((name) => join(folder, name));
  throw new AppError(
    "PATH_NOT_FOUND",
    `there are no traces in ${folder}; npm start writes them, --home names another home folder, --file a file`,
  );
}

/** What is in trace files, without the spans themselves. */
export interface Survey {
  readonly runs: ReadonlyMap<string, RunTrace>;
  readonly traceIds: ReadonlySet<string>;
  /** Lines that are no OTLP JSON: the last one of a process that was killed, for example. */
  readonly brokenLines: number;
}

/** The trace of a run: that of the earliest span which bears the run's id. */
export interface RunTrace {
  readonly traceId: string;
  /** When that span began, in milliseconds since 1970. */
  readonly startMs: number;
}

/** Looks through files. What it keeps grows with the number of traces, not of spans. */
export async function surveyFiles(paths: readonly string[]): Promise<Survey> {
  const runs = new Map<string, RunTrace>();
  const traceIds = new Set<string>();
  let brokenLines = 0;
  for await (const line of linesOf(paths)) {
    const spans = spansFromOtlpLine(line);
    if (spans === undefined) brokenLines++;
    for (const { traceId, startMs, attributes } of spans ?? []) {
      traceIds.add(traceId);
      const runId = attributes["millrace.run.id"];
      if (typeof runId !== "string") continue;
      if (startMs < (runs.get(runId)?.startMs ?? Number.POSITIVE_INFINITY)) runs.set(runId, { traceId, startMs });
    }
  }
  return { runs, traceIds, brokenLines };
}

/** The spans of one trace, from all of the files. */
export async function readTrace(paths: readonly string[], traceId: string): Promise<TraceSpan[]> {
  const spans: TraceSpan[] = [];
  for await (const line of linesOf(paths)) {
    if (!line.toLowerCase().includes(traceId)) continue;
    for (const span of spansFromOtlpLine(line) ?? []) if (span.traceId === traceId) spans.push(span);
  }
  return spans;
}

async function* linesOf(paths: readonly string[]): AsyncGenerator<string> {
  for (const path of paths) {
    try {
      await using file = await open(path);
      for await (const line of file.readLines({ autoClose: false })) if (line.trim() !== "") yield line;
    } catch (thrown) {
      const { code, message } = thrown as NodeJS.ErrnoException;
      if (code === undefined) throw thrown;
      const missing = code === "ENOENT" ? `there is no file ${path}` : `${path} cannot be read: ${message}`;
      throw new AppError("PATH_NOT_FOUND", missing, { cause: thrown });
    }
  }
}

const namedRuns = 10;

/** The trace that is meant: a run's, one by its id, or without either the newest run's. RUN_NOT_FOUND says which runs there are. */
export function chooseTrace(
  { runs, traceIds }: Survey,
  wanted: string | undefined,
): { readonly traceId: string; readonly runId: string | undefined } {
  const newestFirst = [...runs].sort(([, one], [, other]) => other.startMs - one.startMs);
  const runOf = (traceId: string) => newestFirst.find(([, run]) => run.traceId === traceId)?.[0];
  const found = wanted === undefined ? newestFirst[0] : newestFirst.find(([runId]) => runId === wanted);
  if (found !== undefined) return { runId: found[0], traceId: found[1].traceId };
  const traceId = wanted?.toLowerCase();
  if (traceId !== undefined && traceIds.has(traceId)) return { traceId, runId: runOf(traceId) };
  const names = newestFirst.slice(0, namedRuns).map(([runId]) => runId);
  const more = newestFirst.length - names.length;
  const there =
    names.length === 0
      ? `traces in them: ${traceIds.size}, none of a run`
      : `there are the runs ${names.join(", ")}${more > 0 ? ` and ${more} older ones` : ""}`;
  const what = wanted === undefined ? "no run" : `no run or trace "${wanted}"`;
  throw new AppError(
    "RUN_NOT_FOUND",
    `${what} in these files; ${there}`,
    wanted === undefined ? {} : { details: { wanted } },
  );
}

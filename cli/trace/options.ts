import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { AppError } from "../../lib/errors.ts";
import { calledFrom } from "../called-from.ts";

export interface TraceOptions {
  /** Id of a run or a trace; undefined for the newest run. */
  readonly wanted: string | undefined;
  /** Absolute path of the home folder of `start`. */
  readonly home: string;
  /** Absolute paths of the files to read; those of the home folder if there are none. */
  readonly files: readonly string[];
  /** Draw every span, equal ones too. */
  readonly all: boolean;
  /** Absolute path of the page to write. */
  readonly html: string | undefined;
  /** Show the page in a browser. */
  readonly open: boolean;
}

export const traceUsage = `Usage: npm run trace -- [run id | trace id] [options]

Draws a trace that npm start has written: the newest run's, or the one that is named.

  --all                   a line for each span, equal ones too
  --html FILE             write a page with the same picture and all attributes
  --open                  open that page in the browser; without --html it goes to the folder for temporary files
  --home FOLDER           home folder of npm start; default: .millrace
  --file FILE             read this file of OTLP JSON lines instead; may be given several times
  --help                  this text

What had to be waited for is drawn solid: the critical path. NO_COLOR turns colours off.
`;

/** Reads the command line; undefined where only help was asked for. INVALID_REQUEST names the option that is wrong. */
export function parseTraceOptions(args: string[]): TraceOptions | undefined {
  const { values, positionals } = parse(args);
  if (values.help) return undefined;
  if (positionals.length > 1) {
    throw new AppError("INVALID_REQUEST", `one run or trace at a time, not ${positionals.join(" ")}\n\n${traceUsage}`);
  }
  return {
    wanted: positionals[0],
    home: values.home === undefined ? resolve(".millrace") : resolve(calledFrom, values.home),
    files: values.file.map((file) => resolve(calledFrom, file)),
    all: values.all,
    html: values.html === undefined ? undefined : resolve(calledFrom, values.html),
    open: values.open,
  };
}

function parse(args: string[]) {
  const flag = { type: "boolean", default: false } as const;
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: {
        all: flag,
        html: { type: "string" },
        open: flag,
        home: { type: "string" },
        file: { type: "string", multiple: true, default: [] },
        help: flag,
      },
    });
  } catch (thrown) {
    throw new AppError("INVALID_REQUEST", `${AppError.from(thrown).message}\n\n${traceUsage}`);
  }
}

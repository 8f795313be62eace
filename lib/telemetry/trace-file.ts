import { appendFile, mkdir, rename, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { JsonTraceSerializer } from "@opentelemetry/otlp-transformer";
import type { ReadableSpan, SpanExporter } from "@opentelemetry/sdk-trace";

type ExportCallback = Parameters<SpanExporter["export"]>[1];

/** ExportResultCode of the SDK, which is an enum of a package that nothing else here needs. */
const exported = 0;
const failed = 1;

export interface TraceFileOptions {
  /** The file that is written; older ones are named `path.1` (newest) to `path.N`. Its folder is made. */
  readonly path: string;
  /** Size in bytes at which a new file is begun. */
  readonly maxBytes: number;
  /** How many files are kept, the one that is written included. */
  readonly maxFiles: number;
}

/**
 * Writes each batch of spans as one line of OTLP JSON, `{"resourceSpans":[...]}`: the form that the Jaeger page takes
 * as an upload and that the collector's file receiver reads.
 */
export function createTraceFileExporter({ path, maxBytes, maxFiles }: TraceFileOptions): SpanExporter {
  let sizeBytes: number | undefined;
  /** The writes so far; each waits for the one before, so that lines never mix. */
  let writes: Promise<void> = Promise.resolve();

  async function write(line: Uint8Array): Promise<void> {
    if (sizeBytes === undefined) {
      await mkdir(dirname(path), { recursive: true });
      sizeBytes = await sizeOf(path);
    }
    if (sizeBytes > 0 && sizeBytes + line.length > maxBytes) {
      await rotate(path, maxFiles);
      sizeBytes = 0;
    }
    await appendFile(path, line);
    sizeBytes += line.length;
  }

  return {
    export(spans: ReadableSpan[], done: ExportCallback): void {
      const json = JsonTraceSerializer.serializeRequest(spans);
      const written = writes.then(() => write(Buffer.concat([json ?? Buffer.from("{}"), Buffer.from("\n")])));
      writes = written.catch(() => {
        // The batch is lost and reported through `done`; the next one tries again.
      });
      written.then(
        () => done({ code: exported }),
        (error: Error) => done({ code: failed, error }),
      );
    },
    forceFlush: () => writes,
    shutdown: () => writes,
  };
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (isMissing(error)) return 0;
    throw error;
  }
}

/** Moves path.(N-2) to path.(N-1), ..., path to path.1; what was the last is overwritten. */
async function rotate(path: string, maxFiles: number): Promise<void> {
  for (let age = maxFiles - 1; age >= 1; age--) {
    try {
      await rename(age === 1 ? path : `${path}.${age - 1}`, `${path}.${age}`);
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}

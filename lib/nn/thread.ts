/** Worker threads whose entry point is a TypeScript file. */
import { Worker, type WorkerOptions } from "node:worker_threads";
import { AppError } from "../errors.ts";

/**
 * Starts a worker from a `.ts` file. Node from 22.18 on strips the types itself. Before that a worker does not inherit tsx, even
 * where the process was started with `--import tsx`, so the worker starts with a line that registers it and then loads the file.
 */
export function startThread(entry: URL, options: WorkerOptions): Worker {
  const stripsTypes = "typescript" in process.features && Boolean(process.features.typescript);
  if (stripsTypes) return new Worker(entry, options);
  const script = `import { register } from "${import.meta.resolve("tsx/esm/api")}"; register(); await import("${entry.href}");`;
  return new Worker(new URL(`data:text/javascript,${encodeURIComponent(script)}`), options);
}

/** An error as it travels between threads: structured cloning would lose the code. */
export interface ErrorMessage {
  readonly code: AppError["code"];
  readonly message: string;
  readonly retryable: boolean;
  readonly details: AppError["details"];
  /** The message of what lay behind it. */
  readonly cause?: string;
}

export function messageFromError(thrown: unknown): ErrorMessage {
  const { code, message, retryable, details, cause } = AppError.from(thrown);
  return { code, message, retryable, details, ...(cause instanceof Error && { cause: cause.message }) };
}

export function errorFromMessage({ code, message, ...options }: ErrorMessage): AppError {
  return new AppError(code, message, options);
}

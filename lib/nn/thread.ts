/** Worker threads whose entry point is a TypeScript file. */
import { Worker, type WorkerOptions } from "node:worker_threads";
import { AppError } from "../errors.ts";

/**
 * Starts a worker from a `.ts` file. A worker does not inherit tsx on Node 20, even where the process was started with
 * `--import tsx`, so it starts with a line that registers tsx and then loads the file. On later versions too, although they strip
 * types themselves: what a worker may contain should not depend on the version.
 */
export function startThread(entry: URL, options: WorkerOptions): Worker {
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

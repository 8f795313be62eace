/** Worker threads whose entry point is a TypeScript file. */
import { Worker, type WorkerOptions } from "node:worker_threads";
import { AppError } from "../errors.ts";
import { runsTypeScript } from "../type-script.ts";

/**
 * Starts a worker from a `.ts` file. Where Node needs tsx, a worker starts with a line that registers it and then loads the file: on Node 20 it does
 * not inherit tsx from a process that was started with `--import tsx`.
 */
export function startThread(entry: URL, options: WorkerOptions): Worker {
  if (runsTypeScript) return new Worker(entry, options);
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

/** Worker threads whose entry point is a TypeScript file. */
import { Worker, type WorkerOptions } from "node:worker_threads";
import { AppError } from "../errors.ts";

/**
 * Starts a worker from a `.ts` file. Node from 22.18 on strips the types itself. Older ones need tsx: a worker inherits it when
 * the process was started with `--import tsx`, but not when tsx was registered by a call, so it is asked for here.
 */
export function startThread(entry: URL, options: WorkerOptions): Worker {
  const { execArgv } = process;
  const stripsTypes = "typescript" in process.features && Boolean(process.features.typescript);
  if (stripsTypes || execArgv.some((argument) => argument.includes("tsx"))) {
    return new Worker(entry, options);
  }
  return new Worker(entry, { ...options, execArgv: [...execArgv, "--import", import.meta.resolve("tsx")] });
}

/** An error as it travels between threads: structured cloning would lose the code. */
export interface ErrorMessage {
  readonly code: AppError["code"];
  readonly message: string;
  readonly retryable: boolean;
  readonly details: AppError["details"];
}

export function messageFromError(thrown: unknown): ErrorMessage {
  const { code, message, retryable, details } = AppError.from(thrown);
  return { code, message, retryable, details };
}

export function errorFromMessage({ code, message, retryable, details }: ErrorMessage): AppError {
  return new AppError(code, message, { retryable, details });
}

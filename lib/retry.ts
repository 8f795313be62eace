import { setTimeout as delay } from "node:timers/promises";
import { AppError } from "./errors.ts";

/**
 * Does work again while it fails with a retryable error, after each of the pauses in turn. Rejects with the last error,
 * or at once with one that trying again cannot mend.
 */
export async function withRetries<T>(
  pausesMs: readonly number[],
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<T> {
  for (const pauseMs of pausesMs) {
    try {
      return await work();
    } catch (thrown) {
      if (!AppError.from(thrown).retryable) throw thrown;
      await delay(pauseMs, undefined, { signal });
    }
  }
  return work();
}

import { setTimeout as delay } from "node:timers/promises";
import { Health, HealthCheckResponse_ServingStatus as ServingStatus } from "../../gen/grpc/health/v1/health_pb.ts";
import { AppError } from "../errors.ts";
import { createClient } from "./client.ts";

/** Time between two questions. */
const pollMs = 100;
/** Time that one answer may take. */
const answerMs = 1_000;

export interface WaitOptions {
  /** Gives up after this time. */
  readonly timeoutMs: number;
  /** A service by its full name; the server as a whole by default. */
  readonly service?: string;
  /** Stops waiting: rejects with CANCELLED. */
  readonly signal?: AbortSignal;
}

/**
 * Asks a server's health until it serves.
 *
 * @throws AppError DEADLINE_EXCEEDED with the last answer, CANCELLED when `signal` aborts.
 */
export async function waitUntilServing(address: string, options: WaitOptions): Promise<void> {
  const { timeoutMs, service = "", signal } = options;
  const client = createClient(Health, { address, retry: false });
  const giveUpAtMs = performance.now() + timeoutMs;
  let last: string | undefined;
  try {
    for (let leftMs = timeoutMs; leftMs > 0; leftMs = giveUpAtMs - performance.now()) {
      if (signal?.aborted) throw new AppError("CANCELLED", `stopped waiting for ${address}`, { cause: signal.reason });
      try {
        const deadlineMs = Math.min(answerMs, leftMs);
        const { status } = await client.check({ service }, { deadlineMs, ...(signal && { signal }) });
        if (status === ServingStatus.SERVING) return;
        last = "it says that it does not serve";
      } catch (thrown) {
        const error = AppError.from(thrown);
        // The last question may have no time left to be answered: that says less than an earlier answer.
        if (error.code !== "DEADLINE_EXCEEDED" || last === undefined) last = error.message;
      }
      await delay(pollMs, undefined, signal && { signal }).catch(() => {});
    }
  } finally {
    client.close();
  }
  const what = service === "" ? address : `${service} at ${address}`;
  throw new AppError(
    "DEADLINE_EXCEEDED",
    `${what} does not serve after ${timeoutMs} ms: ${last ?? "it was not asked"}`,
  );
}

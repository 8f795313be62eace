import { setTimeout as delay } from "node:timers/promises";
import { AppError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { type Attempted, brokerErrorFrom } from "./broker-errors.ts";
import type { Connection } from "./connection.ts";

/** A request to the broker, and how long to insist on it. */
export interface AskOptions extends Attempted {
  /** How long the request is made again while the broker cannot be reached, in milliseconds. Default: the bus's `publishTimeoutMs`. */
  readonly timeoutMs?: number;
  /** Waits without end, for space in a full stream too, until the signal aborts. Default: false. */
  readonly patient?: boolean;
  /** Ends the asking at once; the request itself may still succeed. */
  readonly signal?: AbortSignal | undefined;
}

/** How long one try waits for its answer. */
export const tryTimeoutMs = 5_000;
const longestPauseMs = 2_000;

/**
 * Makes a request, and makes it again for as long as only the broker's absence stands in the way. The request must be
 * one that does no harm when it is made twice: a try that seems to have failed may have been executed.
 */
export async function ask<T>(
  connection: Connection,
  logger: Logger,
  request: () => Promise<T>,
  options: AskOptions & { readonly timeoutMs: number },
): Promise<T> {
  const { timeoutMs, patient = false, signal } = options;
  const deadline = patient ? Number.POSITIVE_INFINITY : Date.now() + timeoutMs;
  for (let attempt = 0; ; attempt++) {
    signal?.throwIfAborted();
    try {
      return await oneTry(connection, request, signal);
    } catch (thrown) {
      signal?.throwIfAborted();
      const error = brokerErrorFrom(thrown, options);
      const pauseMs = Math.min(100 * 2 ** attempt, longestPauseMs);
      const mayPass = error.code === "BROKER_UNAVAILABLE" || (patient && error.code === "STREAM_FULL");
      const closing = connection.nc.isClosed() || connection.nc.isDraining();
      if (!mayPass || closing || Date.now() + pauseMs > deadline) throw error;
      if (attempt === 1)
        logger.warn({ event: "broker.waiting", error }, "the broker does not take a request; trying on");
      // An abort ends the pause; the loop's beginning says why.
      await delay(pauseMs, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
    }
  }
}

/** One try. It ends as soon as the connection was lost and is back, since no answer to it can come any more. */
function oneTry<T>(connection: Connection, request: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  return new Promise((resolve, reject) => {
    const lost = () => reject(new Error("the connection was lost before the answer came"));
    const aborted = () => reject(signal?.reason ?? new AppError("CANCELLED", "the request was aborted"));
    const forget = connection.onReconnect(lost);
    signal?.addEventListener("abort", aborted, { once: true });
    void request()
      .then(resolve, reject)
      .finally(() => {
        forget();
        signal?.removeEventListener("abort", aborted);
      });
  });
}

import { setTimeout as delay } from "node:timers/promises";
import { orAborted } from "../abort.ts";
import type { Logger } from "../log.ts";
import { type Attempted, brokerErrorFrom, isStreamMissing } from "./broker-errors.ts";
import type { Connection } from "./connection.ts";

/** How long to insist on a request to the broker. */
export interface Insistence {
  /** How long the request is made again while the broker cannot be reached, in milliseconds; 0 for one try. Default: the bus's `publishTimeoutMs`. */
  readonly timeoutMs?: number;
  /** Waits without end, for space in a full stream too, until the signal aborts. Default: false. */
  readonly patient?: boolean;
  /** Ends the asking at once; the request itself may still succeed. */
  readonly signal?: AbortSignal | undefined;
}

export interface AskOptions extends Attempted, Insistence {}

const longestPauseMs = 2_000;

export interface Asker {
  readonly connection: Connection;
  readonly logger: Logger;
  /** Makes the streams again. Called when one is missing, for example after the server lost its store. */
  readonly restoreStreams?: () => Promise<void>;
}

/**
 * Makes a request, and makes it again for as long as only the broker's absence stands in the way. The request must be
 * one that does no harm when it is made twice: a try that seems to have failed may have been executed.
 */
export async function ask<T>(
  { connection, logger, restoreStreams }: Asker,
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
      if (!mayPass || closing) throw error;
      // If this fails as well, the next try tells.
      if (isStreamMissing(thrown)) await restoreStreams?.().catch(() => undefined);
      if (Date.now() + pauseMs > deadline) throw error;
      if (attempt === 1)
        logger.warn({ event: "broker.waiting", error }, "the broker takes a request not yet; trying on");
      // An abort ends the pause; the loop's beginning says why.
      await delay(pauseMs, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
    }
  }
}

/** One try. It ends as soon as the connection was lost and is back, since no answer to it can come any more. */
function oneTry<T>(connection: Connection, request: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  const answered = new Promise<T>((resolve, reject) => {
    const forget = connection.onReconnect(() => reject(new Error("the connection was lost before the answer came")));
    void request().then(resolve, reject).finally(forget);
  });
  return signal === undefined ? answered : orAborted(answered, signal);
}

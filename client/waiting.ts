import { type Client, Code, ConnectError } from "@connectrpc/connect";
import { type Health, HealthCheckResponse_ServingStatus as ServingStatus } from "../gen/grpc/health/v1/health_pb.ts";
import { pause } from "./pause.ts";

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
 * Asks a server's health until it serves. Rejects with a ConnectError: DEADLINE_EXCEEDED with what was heard last, CANCELED when `signal`
 * aborts.
 *
 * @example await waitUntilServing(millrace.health, { timeoutMs: 10_000 });
 */
export async function waitUntilServing(health: Client<typeof Health>, options: WaitOptions): Promise<void> {
  const { timeoutMs, service = "", signal } = options;
  const giveUpAtMs = performance.now() + timeoutMs;
  let last: string | undefined;
  for (let leftMs = timeoutMs; leftMs > 0; leftMs = giveUpAtMs - performance.now()) {
    if (signal?.aborted) {
      throw new ConnectError("waiting for the server was cancelled", Code.Canceled, undefined, [], signal.reason);
    }
    try {
      const timeoutMs = Math.min(answerMs, Math.ceil(leftMs));
      const { status } = await health.check({ service }, { timeoutMs, ...(signal && { signal }) });
      if (status === ServingStatus.SERVING) return;
      last = "it says that it does not serve";
    } catch (thrown) {
      const error = ConnectError.from(thrown);
      // The last question may have no time left to be answered: that says less than an earlier answer.
      if (error.code !== Code.DeadlineExceeded || last === undefined) last = error.rawMessage;
    }
    await pause(pollMs, signal);
  }
  const what = service === "" ? "the server" : service;
  const text = `${what} does not serve after ${timeoutMs} ms: ${last ?? "it was not asked"}`;
  throw new ConnectError(text, Code.DeadlineExceeded);
}

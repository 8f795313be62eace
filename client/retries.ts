import { MethodOptions_IdempotencyLevel as IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Call, Layer } from "./call.ts";
import { retryDelayMsOf } from "./errors.ts";
import { pause } from "./pause.ts";

const firstPauseMs = 100;
const longestPauseMs = 5_000;

/**
 * Tries again, up to `retries` times, what may be done twice (`idempotency_level` of the method) and may succeed later:
 * UNAVAILABLE, and RESOURCE_EXHAUSTED where the server says when to come back. Within the time of the call: the first try and
 * all others share one deadline. A stream is tried again only before its first message.
 */
export function retryCalls(retries: number): Layer {
  return (next) => async (call) => {
    if (!isRepeatable(call)) return next(call);
    const endsAtMs = call.timeoutMs ? performance.now() + call.timeoutMs : Number.POSITIVE_INFINITY;
    for (let retry = 0; ; retry++) {
      const leftMs = endsAtMs - performance.now();
      try {
        // gRPC's deadline is a whole number, and 0 would mean none.
        const timeoutMs = Math.max(1, Math.ceil(leftMs));
        return await next(Number.isFinite(leftMs) ? { ...call, timeoutMs } : call);
      } catch (error) {
        const pauseMs = retry < retries ? pauseBefore(retry, error) : undefined;
        if (pauseMs === undefined || performance.now() + pauseMs >= endsAtMs) throw error;
        // A cancelled pause ends early: the try that follows then fails as cancelled, in the transport's own words.
        await pause(pauseMs, call.signal);
      }
    }
  };
}

function isRepeatable({ method }: Call): boolean {
  const answersOneMessage = method.methodKind === "unary" || method.methodKind === "server_streaming";
  return answersOneMessage && method.idempotency !== IdempotencyLevel.IDEMPOTENCY_UNKNOWN;
}

/** Milliseconds to wait, undefined where another try would not help: what the server asks for, else exponential with full jitter. */
function pauseBefore(retry: number, error: unknown): number | undefined {
  const { code } = ConnectError.from(error);
  if (code !== Code.Unavailable && code !== Code.ResourceExhausted) return undefined;
  const askedMs = retryDelayMsOf(error);
  if (askedMs !== undefined || code === Code.ResourceExhausted) return askedMs;
  return Math.random() * Math.min(longestPauseMs, firstPauseMs * 2 ** retry);
}

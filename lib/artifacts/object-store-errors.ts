import { JetStreamApiError } from "@nats-io/jetstream";
import { errors } from "@nats-io/nats-core";
import { AppError } from "../errors.ts";

/** JetStream's error codes for a bucket, an account or a server that takes no more. */
const fullCodes = new Set([10002, 10023, 10028, 10047, 10077]);
/** "wrong last sequence", on a server of its own and in a cluster. */
const wrongLastSequence = new Set([10071, 10164]);

/** Whether a compare-and-set lost: somebody else has written the entry meanwhile. */
export function isWriteConflict(error: unknown): boolean {
  return error instanceof JetStreamApiError && wrongLastSequence.has(error.code);
}

/** Does a piece of work on the server; what the client library throws becomes one of our errors. */
export async function translated<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw appErrorFrom(error, what);
  }
}

function appErrorFrom(error: unknown, what: string): AppError {
  if (error instanceof errors.TimeoutError) {
    return new AppError("ARTIFACT_TIMEOUT", `${what}: the server did not answer in time`, { cause: error });
  }
  if (error instanceof JetStreamApiError && fullCodes.has(error.code)) {
    return new AppError("STREAM_FULL", `${what}: ${error.message}; raise the limit or remove artifacts`, {
      cause: error,
    });
  }
  if (isUnreachable(error)) {
    return new AppError("BROKER_UNAVAILABLE", `${what}: ${(error as Error).message}`, { cause: error });
  }
  return AppError.from(error);
}

function isUnreachable(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if (error instanceof errors.RequestError) return error.isNoResponders();
  return (
    error instanceof errors.ClosedConnectionError ||
    error instanceof errors.DrainingConnectionError ||
    error instanceof errors.ConnectionError ||
    isUnreachable(error.cause) // "JetStream is not enabled" for a request that nobody answers
  );
}

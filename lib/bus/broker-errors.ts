import { JetStreamApiCodes, JetStreamApiError } from "@nats-io/jetstream";
import { errors } from "@nats-io/nats-core";
import { AppError, type ErrorCode, type ErrorDetails } from "../errors.ts";

/** Whether the broker answered with this error number. */
export function isApiError(thrown: unknown, code: number): boolean {
  const answer = thrown instanceof AppError ? thrown.cause : thrown;
  return answer instanceof JetStreamApiError && answer.code === code;
}

/** Whether a request failed because its stream is not there; also when the server runs without JetStream. */
export function isStreamMissing(thrown: unknown): boolean {
  // The class is not exported. It is thrown for every subject that no stream takes.
  return (
    isApiError(thrown, JetStreamApiCodes.StreamNotFound) ||
    (thrown instanceof Error && thrown.name === "JetStreamNotEnabled")
  );
}

/** What was asked of the broker, for the message of an error. */
export interface Attempted {
  /** Begins the message, such as "event run.requested of run r1 could not be stored". */
  readonly failure: string;
  readonly details?: ErrorDetails;
}

/**
 * Errors of JetStream that waiting does not mend, by their number, with what to do about each:
 * https://github.com/nats-io/nats-server/blob/main/server/errors.json
 */
const apiErrors: Readonly<Record<number, readonly [ErrorCode, string]>> = {
  // "resource limits exceeded for account", "insufficient resources", "insufficient memory", "insufficient storage"
  10002: ["STREAM_FULL", "raise the limits of the account"],
  10023: ["STREAM_FULL", "raise the server's storage limit or free space on its disk"],
  10028: ["STREAM_FULL", "raise the server's storage limit or free space on its disk"],
  10047: [
    "STREAM_FULL",
    "free space on the server's disk, raise its storage limit, or reserve less for events (MILLRACE_MAX_EVENT_BYTES)",
  ],
  // "wrong last sequence", on a server of its own and in a cluster
  10071: ["CONFLICT", "read it again and decide anew"],
  10164: ["CONFLICT", "read it again and decide anew"],
  // "message size exceeds maximum allowed"
  10054: ["EVENT_INVALID", "put the bulk into an artifact and its digest into the event"],
  // "expected stream does not match", "replicas > 1 not supported in non-clustered mode", "no suitable peers"
  10060: ["CONFIGURATION_INVALID", "another stream takes this subject; delete or rename it"],
  10074: ["CONFIGURATION_INVALID", "set replicas to 1, or connect to a cluster"],
  10005: ["CONFIGURATION_INVALID", "the cluster has too few servers for the replicas wanted"],
};

/** "maximum bytes exceeded" and the like; the same number is used for a store that is closing, which waiting mends. */
const storeFailed = 10077;

/**
 * What a request to the broker threw, as an error of ours. BROKER_UNAVAILABLE, and nothing else, means that the same
 * request may succeed when it is made again.
 */
export function brokerErrorFrom(thrown: unknown, { failure, details = {} }: Attempted): AppError {
  if (thrown instanceof AppError) return thrown;
  const reason = thrown instanceof Error ? thrown.message : String(thrown);
  const error = (code: ErrorCode, advice: string) =>
    new AppError(code, `${failure}: ${reason}; ${advice}`, { cause: thrown, details });
  const cause = thrown instanceof Error && thrown.cause !== undefined ? thrown.cause : thrown;
  if (thrown instanceof JetStreamApiError) {
    if (thrown.code === storeFailed && /exceeded|no space/.test(reason)) {
      return error("STREAM_FULL", "raise the stream's limits or wait for old messages to age out");
    }
    const known = apiErrors[thrown.code];
    if (known !== undefined) return error(...known);
  }
  if (isStreamMissing(thrown)) {
    return error("BROKER_UNAVAILABLE", "the stream is missing, or the server runs without JetStream (nats-server -js)");
  }
  if (cause instanceof errors.PermissionViolationError) {
    return error("CONFIGURATION_INVALID", "grant the service's NATS user this subject");
  }
  if (thrown instanceof errors.InvalidSubjectError || thrown instanceof errors.InvalidArgumentError) {
    return error("EVENT_INVALID", "an event is at most as large as the server's max_payload, and names have no spaces");
  }
  return error("BROKER_UNAVAILABLE", "is the NATS server up and reachable?");
}

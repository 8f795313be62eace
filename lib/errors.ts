/**
 * Every error that Millrace shows to people or to other services.
 *
 * The table is the single place where an error code gets its gRPC status and says whether trying again can help:
 * the RPC edge maps `status` to the wire, a consumer maps `retryable` to a delayed redelivery or a dead letter.
 */

/** gRPC status names, in the lower-case form that Connect writes into JSON. */
export type StatusName =
  | "aborted"
  | "canceled"
  | "data_loss"
  | "deadline_exceeded"
  | "failed_precondition"
  | "internal"
  | "invalid_argument"
  | "not_found"
  | "resource_exhausted"
  | "unavailable";

interface CodeEntry {
  readonly status: StatusName;
  /** Whether the same work may succeed later without anybody changing anything. */
  readonly retryable: boolean;
}

/** All error codes. They are stable: clients read them as `google.rpc.ErrorInfo.reason`. */
export const errorTable = {
  ARCHIVE_REFUSED: { status: "invalid_argument", retryable: false },
  ARTIFACT_CORRUPT: { status: "data_loss", retryable: false },
  ARTIFACT_NOT_FOUND: { status: "not_found", retryable: false },
  ARTIFACT_TIMEOUT: { status: "deadline_exceeded", retryable: true },
  BROKER_UNAVAILABLE: { status: "unavailable", retryable: true },
  CANCELLED: { status: "canceled", retryable: false },
  CONFIGURATION_INVALID: { status: "invalid_argument", retryable: false },
  CONFLICT: { status: "aborted", retryable: true },
  DATASET_INVALID: { status: "invalid_argument", retryable: false },
  DEADLINE_EXCEEDED: { status: "deadline_exceeded", retryable: true },
  DOWNLOAD_FAILED: { status: "unavailable", retryable: true },
  ENGINE_UNAVAILABLE: { status: "failed_precondition", retryable: false },
  EVENT_INVALID: { status: "invalid_argument", retryable: false },
  IMAGE_NOT_FETCHED: { status: "failed_precondition", retryable: false },
  IMAGE_TOO_LARGE: { status: "invalid_argument", retryable: false },
  IMAGE_UNREADABLE: { status: "invalid_argument", retryable: false },
  IMAGE_URL_REFUSED: { status: "invalid_argument", retryable: false },
  INTERNAL: { status: "internal", retryable: true },
  INVALID_REQUEST: { status: "invalid_argument", retryable: false },
  LAYER_UNSUPPORTED: { status: "invalid_argument", retryable: false },
  MODEL_IN_USE: { status: "failed_precondition", retryable: true },
  MODEL_MEMORY_FULL: { status: "resource_exhausted", retryable: true },
  MODEL_NOT_FOUND: { status: "not_found", retryable: false },
  MODEL_NOT_READY: { status: "unavailable", retryable: true },
  NETWORK_UNKNOWN: { status: "invalid_argument", retryable: false },
  PATH_NOT_FOUND: { status: "not_found", retryable: false },
  QUEUE_FULL: { status: "resource_exhausted", retryable: true },
  RUN_ENDED: { status: "failed_precondition", retryable: false },
  RUN_NOT_FOUND: { status: "not_found", retryable: false },
  SERVICE_UNAVAILABLE: { status: "unavailable", retryable: true },
  SHUTTING_DOWN: { status: "unavailable", retryable: true },
  STREAM_FULL: { status: "resource_exhausted", retryable: true },
  TRAINING_DIVERGED: { status: "failed_precondition", retryable: false },
} as const satisfies Record<string, CodeEntry>;

export type ErrorCode = keyof typeof errorTable;

/** Facts about an error that programs read: identifiers, limits, the offending field. Never secrets. */
export type ErrorDetails = Readonly<Record<string, string>>;

export interface AppErrorOptions {
  readonly details?: ErrorDetails;
  readonly cause?: unknown;
  /** Overrides the table, where the thrower knows better. */
  readonly retryable?: boolean;
}

/**
 * The one error class. A message says what went wrong, with which id, and what to do about it.
 *
 * @example throw new AppError("ARTIFACT_NOT_FOUND", `artifact ${digest} is not in the store; run the data set's preparation again`, { details: { digest } })
 */
export class AppError extends Error {
  override readonly name = "AppError";
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, options: AppErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.retryable = options.retryable ?? errorTable[code].retryable;
    this.details = options.details ?? {};
  }

  /** The gRPC status of this error's code. */
  get status(): StatusName {
    return errorTable[this.code].status;
  }

  /** Anything thrown, as an AppError: an abort becomes CANCELLED, a stranger INTERNAL with its message kept. */
  static from(thrown: unknown): AppError {
    if (thrown instanceof AppError) return thrown;
    if (thrown instanceof Error) {
      if (thrown.name === "AbortError" || thrown.name === "TimeoutError") {
        const code = thrown.name === "AbortError" ? "CANCELLED" : "DEADLINE_EXCEEDED";
        return thrown.cause instanceof AppError ? thrown.cause : new AppError(code, thrown.message, { cause: thrown });
      }
      return new AppError("INTERNAL", thrown.message, { cause: thrown });
    }
    return new AppError("INTERNAL", String(thrown));
  }
}

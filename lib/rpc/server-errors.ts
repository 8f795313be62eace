import { create, type DescMessage, type Message, type MessageInitShape } from "@bufbuild/protobuf";
import { pathToString } from "@bufbuild/protobuf/reflect";
import { anyPack, durationFromMs } from "@bufbuild/protobuf/wkt";
import { ValidationError } from "@bufbuild/protovalidate";
import { Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.ts";
import { type Status, StatusSchema } from "../../gen/google/rpc/status_pb.ts";
import { AppError, type StatusName } from "../errors.ts";
import { memoize } from "../memoize.ts";
import { currentTraceId } from "../telemetry/spans.ts";

/** `google.rpc.ErrorInfo.domain` of every error that Millrace makes. */
export const errorDomain = "millrace";

/** What a call's signal says of its end; {@link AbortSignal} has it. */
export type Ending = Pick<AbortSignal, "aborted" | "reason">;

/** What clients are asked to wait before they try again, where the thrower says nothing else. */
const defaultRetryDelayMs = 1_000;

const codes: Readonly<Record<StatusName, Code>> = {
  aborted: Code.Aborted,
  canceled: Code.Canceled,
  data_loss: Code.DataLoss,
  deadline_exceeded: Code.DeadlineExceeded,
  failed_precondition: Code.FailedPrecondition,
  internal: Code.Internal,
  invalid_argument: Code.InvalidArgument,
  not_found: Code.NotFound,
  resource_exhausted: Code.ResourceExhausted,
  unavailable: Code.Unavailable,
};

/**
 * Anything that a handler threw, as the error that its client reads over any protocol.
 *
 * An AppError keeps its message and gets google.rpc.ErrorInfo (reason = code, metadata = details), BadRequest where
 * `details.field` names a field, RetryInfo where trying again can help (after `details.retryDelayMs`, 1 s by default).
 * A broken validation rule gets BadRequest beside buf.validate.Violations. An abort is answered with the reason of
 * `ending`. Anything else is `internal` without its text, with the trace id in the metadata of ErrorInfo, which is asked for only then.
 */
export function outgoingError(thrown: unknown, ending: Ending, traceId: () => string | undefined): ConnectError {
  if (thrown instanceof AppError) return errorFromAppError(thrown);
  if (thrown instanceof ConnectError) {
    return thrown.cause instanceof ValidationError ? withBadRequest(thrown, thrown.cause) : thrown;
  }
  if (isAbort(thrown)) {
    const { aborted, reason } = ending;
    if (aborted && !isAbort(reason)) return outgoingError(reason, ending, traceId);
    return errorFromAppError(AppError.from(thrown));
  }
  const id = traceId();
  const metadata: Record<string, string> = id === undefined ? {} : { trace_id: id };
  const info = detail(ErrorInfoSchema, { reason: "INTERNAL", domain: errorDomain, metadata });
  return new ConnectError("internal error", Code.Internal, undefined, [info], thrown);
}

/** An error that is part of an answer, as when one of several images fails: with the code, message and details of a call that fails with it. */
export function statusFromError(thrown: unknown): Status {
  const { code, rawMessage: message, details } = outgoingError(thrown, goesOn, currentTraceId);
  const packed = details.filter((each): each is ErrorDetail => "desc" in each);
  return create(StatusSchema, { code, message, details: packed.map(({ desc, value }) => anyPack(desc, value)) });
}

/** The call of which it is a part. */
const goesOn: Ending = { aborted: false, reason: undefined };

/** A server that refuses many throws the same error to all of them: it is made once. */
const errorFromAppError = memoize((error: AppError): ConnectError => {
  const { code, status, retryable } = error;
  const message = shortened(error.message);
  const details = mapValues(error.details, shortened);
  const outgoing = [detail(ErrorInfoSchema, { reason: code, domain: errorDomain, metadata: details })];
  if (details.field !== undefined) {
    outgoing.push(detail(BadRequestSchema, { fieldViolations: [{ field: details.field, description: message }] }));
  }
  if (retryable) {
    const delayMs = Number(details.retryDelayMs) || defaultRetryDelayMs;
    outgoing.push(detail(RetryInfoSchema, { retryDelay: durationFromMs(delayMs) }));
  }
  return new ConnectError(message, codes[status], undefined, outgoing, error);
});

/** Bytes of a text at most: errors travel in headers, of which some clients take no more than 8 KB, each text up to three times and encoded. */
const longestTextBytes = 1_000;

/** Halves of characters are replaced, or the text could not be encoded, and there would be no answer at all. */
function shortened(text: string): string {
  const bytes = Buffer.alloc(longestTextBytes);
  const { read, written } = new TextEncoder().encodeInto(text, bytes);
  const kept = bytes.toString("utf8", 0, written);
  return read < text.length ? `${kept}...` : kept;
}

function mapValues(record: Readonly<Record<string, string>>, map: (value: string) => string): Record<string, string> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, map(value)]));
}

/** gRPC clients look for BadRequest; the violations that protovalidate attached stay. */
function withBadRequest(error: ConnectError, { violations }: ValidationError): ConnectError {
  const fieldViolations = violations.map(({ field, message }) => ({
    field: pathToString(field),
    description: message,
  }));
  const added = [
    detail(ErrorInfoSchema, { reason: "INVALID_REQUEST", domain: errorDomain }),
    detail(BadRequestSchema, { fieldViolations }),
  ];
  error.details.push(...added);
  return error;
}

type ErrorDetail = { readonly desc: DescMessage; readonly value: Message };

function detail<Desc extends DescMessage>(desc: Desc, init: MessageInitShape<Desc>): ErrorDetail {
  return { desc, value: create(desc, init) };
}

function isAbort(thrown: unknown): boolean {
  return thrown instanceof Error && (thrown.name === "AbortError" || thrown.name === "TimeoutError");
}

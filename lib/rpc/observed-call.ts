import { Code, type ConnectError, type StreamRequest, type UnaryRequest } from "@connectrpc/connect";
import {
  type Context,
  context,
  isSpanContextValid,
  propagation,
  type Span,
  SpanKind,
  SpanStatusCode,
  type TextMapGetter,
  trace,
} from "@opentelemetry/api";
import { AppError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { startSpan } from "../telemetry/spans.ts";
import { outgoingError } from "./server-errors.ts";

/** Codes by which a server says that it failed; the others are answers (semantic conventions for RPC spans). */
const serverFaults: ReadonlySet<Code> = new Set([
  Code.Unknown,
  Code.DeadlineExceeded,
  Code.Unimplemented,
  Code.Internal,
  Code.Unavailable,
  Code.DataLoss,
]);

/** Codes behind which there is a mistake or damage that somebody has to look into. */
const alarming: ReadonlySet<Code> = new Set([Code.Unknown, Code.Internal, Code.DataLoss]);

const headerGetter: TextMapGetter<Headers> = {
  keys: (headers) => [...headers.keys()],
  get: (headers, key) => headers.get(key) ?? undefined,
};

/** One call as telemetry sees it. The first outcome counts; what is said after it has no effect on span and log. */
export interface ObservedCall {
  /** Holds the call's span. */
  readonly context: Context;
  succeed(): void;
  /** Returns the error that the client gets. */
  fail(thrown: unknown, signal: AbortSignal): ConnectError;
}

/** Begins the span of a call, as a child of its caller's. */
export function observeCall(request: UnaryRequest | StreamRequest, logger: Logger): ObservedCall {
  const method = `${request.service.typeName}/${request.method.name}`;
  const protocol = protocolOf(request.header);
  const parent = propagation.extract(context.active(), request.header, headerGetter);
  const span = startSpan(method, {
    kind: SpanKind.SERVER,
    parent,
    attributes: {
      "rpc.system.name": protocol === "connect" ? "connectrpc" : "grpc",
      "rpc.method": method,
      "millrace.rpc.protocol": protocol,
    },
  });
  const callContext = trace.setSpan(parent, span);
  const startedMs = performance.now();
  let ended = false;

  function end(status: string) {
    ended = true;
    span.setAttribute("rpc.response.status_code", status);
    span.end();
    const durationMs = Math.round((performance.now() - startedMs) * 1_000) / 1_000;
    context.with(callContext, () => logger.debug({ event: "rpc.call", method, protocol, status, durationMs }, method));
  }

  return {
    context: callContext,
    succeed() {
      if (!ended) end("OK");
    },
    fail(thrown, signal) {
      const error = outgoingError(thrown, signal, traceIdOf(span));
      if (ended) return error;
      if (alarming.has(error.code)) {
        context.with(callContext, () =>
          logger.error({ event: "rpc.failed", method, error: thrown }, `${method} failed`),
        );
      }
      if (serverFaults.has(error.code)) markFailed(span, thrown, error);
      end(statusName(error.code));
      return error;
    },
  };
}

function markFailed(span: Span, thrown: unknown, error: ConnectError): void {
  span.setStatus({ code: SpanStatusCode.ERROR, message: error.rawMessage });
  span.setAttribute("error.type", thrown instanceof AppError ? thrown.code : statusName(error.code));
  if (thrown instanceof Error) span.recordException(thrown);
}

function traceIdOf(span: Span): string | undefined {
  const spanContext = span.spanContext();
  return isSpanContextValid(spanContext) ? spanContext.traceId : undefined;
}

function protocolOf(headers: Headers): "connect" | "grpc" | "grpc-web" {
  const contentType = headers.get("content-type") ?? "";
  if (contentType.startsWith("application/grpc-web")) return "grpc-web";
  return contentType.startsWith("application/grpc") ? "grpc" : "connect";
}

/** The name that gRPC uses: NotFound is NOT_FOUND. */
function statusName(code: Code): string {
  if (code === Code.Canceled) return "CANCELLED";
  return Code[code].replaceAll(/(?<=[a-z])[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
}

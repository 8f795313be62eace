import type { IncomingHttpHeaders } from "node:http2";
import type { DescMethod } from "@bufbuild/protobuf";
import { Code, type ConnectError } from "@connectrpc/connect";
import {
  type Context,
  context,
  isSpanContextValid,
  propagation,
  type Span,
  SpanKind,
  SpanStatusCode,
  type TextMapGetter,
} from "@opentelemetry/api";
import { AppError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { recordMetric } from "../telemetry/metrics.ts";
import { contextOf, startSpan } from "../telemetry/spans.ts";
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

/** Headers as connect-node has them, or as Node has them. */
type CallHeaders = Headers | IncomingHttpHeaders;

const headerGetter: TextMapGetter<CallHeaders> = {
  keys: (headers) => (headers instanceof Headers ? [...headers.keys()] : Object.keys(headers)),
  get: (headers, key) => (headers instanceof Headers ? (headers.get(key) ?? undefined) : headers[key]),
};

const systems = { connect: "connectrpc", grpc: "grpc", "grpc-web": "grpc", rest: "http" } as const;

/** A call that has come in. */
export interface IncomingCall {
  readonly method: DescMethod;
  /** REST is a call of the method that does the same. */
  readonly protocol: "connect" | "grpc" | "grpc-web" | "rest";
  readonly headers: CallHeaders;
}

/** One call as telemetry sees it. The first outcome counts; what is said after it has no effect on span and log. */
export interface ObservedCall {
  /** Holds the call's span. */
  readonly context: Context;
  succeed(): void;
  /** Returns the error that the client gets. */
  fail(thrown: unknown, signal: AbortSignal): ConnectError;
}

/** Begins the span of a call, as a child of its caller's. Its end is logged and counted. */
export function observeCall({ method: descriptor, protocol, headers }: IncomingCall, logger: Logger): ObservedCall {
  const method = `${descriptor.parent.typeName}/${descriptor.name}`;
  const parent = propagation.extract(context.active(), headers, headerGetter);
  const span = startSpan(method, {
    kind: SpanKind.SERVER,
    parent,
    attributes: {
      "rpc.system.name": systems[protocol],
      "rpc.method": method,
      "millrace.rpc.protocol": protocol,
    },
  });
  const callContext = contextOf(span, parent);
  const startedMs = performance.now();
  let ended = false;

  function end(status: string, errorType?: string) {
    ended = true;
    const durationMs = Math.round((performance.now() - startedMs) * 1_000) / 1_000;
    span.setAttribute("rpc.response.status_code", status);
    span.end();
    recordMetric("rpc.server.call.duration", durationMs / 1_000, {
      "rpc.system.name": systems[protocol],
      "rpc.method": method,
      "rpc.response.status_code": status,
      ...(errorType !== undefined && { "error.type": errorType }),
    });
    // Entering a context is not free, and hardly any service writes this line.
    if (!logger.isLevelEnabled("debug")) return;
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
      const status = statusName(error.code);
      if (!serverFaults.has(error.code)) end(status);
      else end(status, markFailed(span, thrown, error));
      return error;
    },
  };
}

/** Returns the type of the error. */
function markFailed(span: Span, thrown: unknown, error: ConnectError): string {
  const type = thrown instanceof AppError ? thrown.code : statusName(error.code);
  span.setStatus({ code: SpanStatusCode.ERROR, message: error.rawMessage });
  span.setAttribute("error.type", type);
  if (thrown instanceof Error) span.recordException(thrown);
  return type;
}

function traceIdOf(span: Span): string | undefined {
  const spanContext = span.spanContext();
  return isSpanContextValid(spanContext) ? spanContext.traceId : undefined;
}

/** The name that gRPC uses: NotFound is NOT_FOUND. */
function statusName(code: Code): string {
  if (code === Code.Canceled) return "CANCELLED";
  return Code[code].replaceAll(/(?<=[a-z])[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
}

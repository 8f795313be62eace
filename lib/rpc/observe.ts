import { Code, type ConnectError, type Interceptor, type StreamRequest, type UnaryRequest } from "@connectrpc/connect";
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
import { joinSignals, untilAborted } from "./abort.ts";
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

const headerGetter: TextMapGetter<Headers> = {
  keys: (headers) => [...headers.keys()],
  get: (headers, key) => headers.get(key) ?? undefined,
};

/** One call as telemetry sees it. */
interface ObservedCall {
  /** Holds the call's span. */
  readonly context: Context;
  /** The call was answered. */
  succeed(): void;
  /** The call failed: returns the error that its client gets. */
  fail(thrown: unknown, signal: AbortSignal): ConnectError;
  /** The call is over; if neither of the above was said, its client went away in the middle of a stream. */
  end(): void;
}

/**
 * The outermost interceptor of a server: a span whose parent is the caller's, a log line, the error that a client
 * reads, and an end to every call whose signal aborts, even if its handler does not listen.
 * Streams are also ended by `draining`; unary calls may finish while the server stops.
 */
export function observeCalls(logger: Logger, draining: AbortSignal): Interceptor {
  return (next) => async (request) => {
    const call = observeCall(request, logger);
    const joined = request.stream ? joinSignals(request.signal, draining) : undefined;
    const signal = joined?.signal ?? request.signal;
    const step = <T>(work: () => Promise<T>) => context.with(call.context, () => untilAborted(signal, work));

    function end() {
      joined?.release();
      call.end();
    }

    async function* observed<T>(messages: AsyncIterable<T>) {
      const iterator = messages[Symbol.asyncIterator]();
      try {
        for (let item = await step(() => iterator.next()); !item.done; item = await step(() => iterator.next())) {
          yield item.value;
        }
        call.succeed();
      } catch (thrown) {
        throw call.fail(thrown, signal);
      } finally {
        end();
        // Not awaited: a handler that ignores its signal would hold the stream open.
        iterator.return?.().catch(() => {});
      }
    }

    try {
      const response = await step(() => next({ ...request, signal }));
      if (response.stream) return { ...response, message: observed(response.message) };
      call.succeed();
      end();
      return response;
    } catch (thrown) {
      const error = call.fail(thrown, signal);
      end();
      throw error;
    }
  };
}

function observeCall(request: UnaryRequest | StreamRequest, logger: Logger): ObservedCall {
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
  let status = "CANCELLED";

  return {
    context: callContext,
    succeed() {
      status = "OK";
    },
    fail(thrown, signal) {
      const { error, unexpected } = outgoingError(thrown, signal, traceIdOf(span));
      status = statusName(error.code);
      if (serverFaults.has(error.code)) {
        span.setStatus({ code: SpanStatusCode.ERROR, message: error.rawMessage });
        span.setAttribute("error.type", thrown instanceof AppError ? thrown.code : status);
        if (thrown instanceof Error) span.recordException(thrown);
      }
      if (unexpected) {
        const fields = { event: "rpc.failed", method, error: thrown };
        context.with(callContext, () => logger.error(fields, `${method} failed unexpectedly`));
      }
      return error;
    },
    end() {
      span.setAttribute("rpc.response.status_code", status);
      span.end();
      const durationMs = Math.round((performance.now() - startedMs) * 1_000) / 1_000;
      context.with(callContext, () =>
        logger.debug({ event: "rpc.call", method, protocol, status, durationMs }, method),
      );
    },
  };
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

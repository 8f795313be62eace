import type { StreamResponse } from "@connectrpc/connect";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  context,
  propagation,
  type Span,
  SpanKind,
  SpanStatusCode,
  type TextMapSetter,
  trace,
} from "@opentelemetry/api";
import type { Call, Layer } from "./call.ts";
import { reasonOf } from "./errors.ts";

const headersSetter: TextMapSetter<Headers> = { set: (headers, key, value) => headers.set(key, value) };

/**
 * A client span around each call, retries included, and its context in the headers (traceparent), with the tracer and
 * the propagator that the program has registered. For the option `tracing` of createMillraceClient.
 */
export const traceCalls: Layer = (next) => async (call) => {
  // Probes are asked every few seconds, and tell nothing.
  if (call.method.parent.typeName.startsWith("grpc.")) return next(call);
  const name = `${call.method.parent.typeName}/${call.method.name}`;
  const attributes = { "rpc.method": name };
  const span = trace.getTracer("@millrace/client").startSpan(name, { kind: SpanKind.CLIENT, attributes });
  const spanContext = trace.setSpan(context.active(), span);
  const headers = new Headers(call.headers);
  propagation.inject(spanContext, headers, headersSetter);
  let tries = 0;
  const onTry: Call["onTry"] = ({ baseUrl, rpcSystem }) => {
    const { hostname, port, protocol } = new URL(baseUrl);
    const defaultPort = protocol === "https:" ? 443 : 80;
    span.setAttributes({
      "rpc.system.name": rpcSystem,
      "server.address": hostname,
      "server.port": Number(port) || defaultPort,
    });
    if (++tries > 1) span.addEvent("retry", { "server.address": hostname });
  };
  try {
    const response = await context.with(spanContext, () => next({ ...call, headers, onTry }));
    if (response.stream) return { ...response, message: observe(response.message, span) };
    succeed(span);
    return response;
  } catch (error) {
    fail(span, error);
    throw error;
  }
};

async function* observe(messages: StreamResponse["message"], span: Span): StreamResponse["message"] {
  try {
    yield* messages;
    succeed(span);
  } catch (error) {
    fail(span, error);
    throw error;
  }
}

function succeed(span: Span): void {
  span.setAttribute("rpc.response.status_code", "OK");
  span.end();
}

/** A call that its own caller cancels, as by leaving a stream, has not failed. */
function fail(span: Span, thrown: unknown): void {
  const error = ConnectError.from(thrown);
  const status = statusName(error.code);
  span.setAttribute("rpc.response.status_code", status);
  if (error.code !== Code.Canceled) {
    span.setAttribute("error.type", reasonOf(error) ?? status);
    span.setStatus({ code: SpanStatusCode.ERROR, message: error.rawMessage });
  }
  span.end();
}

/** The name that gRPC uses: NotFound is NOT_FOUND. */
function statusName(code: Code): string {
  if (code === Code.Canceled) return "CANCELLED";
  return Code[code].replaceAll(/(?<=[a-z])[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
}

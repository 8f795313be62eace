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
import { memoize } from "../memoize.ts";
import { recordMetric } from "../telemetry/metrics.ts";
import { contextOf, startSpan } from "../telemetry/spans.ts";
import { type Ending, outgoingError } from "./server-errors.ts";

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
export class ObservedCall {
  /** Holds the call's span. */
  readonly context: Context;
  readonly #method: string;
  readonly #protocol: IncomingCall["protocol"];
  readonly #logger: Logger;
  readonly #span: Span;
  readonly #startedMs = performance.now();
  #ended = false;

  /** Begins the call's span, as a child of its caller's. Its end is logged and counted. */
  constructor({ method: descriptor, protocol, headers }: IncomingCall, logger: Logger) {
    const method = nameOf(descriptor);
    const parent = propagation.extract(context.active(), headers, headerGetter);
    this.#method = method;
    this.#protocol = protocol;
    this.#logger = logger;
    this.#span = startSpan(method, {
      kind: SpanKind.SERVER,
      parent,
      attributes: {
        "rpc.system.name": systems[protocol],
        "rpc.method": method,
        "millrace.rpc.protocol": protocol,
      },
    });
    this.context = contextOf(this.#span, parent);
  }

  /** Does work inside the call's span. */
  run<T>(work: () => Promise<T>): Promise<T> {
    // To enter a context is not free.
    return this.context === context.active() ? work() : context.with(this.context, work);
  }

  succeed(): void {
    if (!this.#ended) this.#end("OK");
  }

  /** Returns the error that the client gets. */
  fail(thrown: unknown, ending: Ending): ConnectError {
    const method = this.#method;
    const error = outgoingError(thrown, ending, () => traceIdOf(this.#span));
    if (this.#ended) return error;
    if (alarming.has(error.code)) {
      context.with(this.context, () =>
        this.#logger.error({ event: "rpc.failed", method, error: thrown }, `${method} failed`),
      );
    }
    const status = statusNames[error.code];
    if (!serverFaults.has(error.code)) this.#end(status);
    else this.#end(status, markFailed(this.#span, thrown, error));
    return error;
  }

  #end(status: string, errorType?: string): void {
    const [method, protocol, span, logger] = [this.#method, this.#protocol, this.#span, this.#logger];
    this.#ended = true;
    const durationMs = Math.round((performance.now() - this.#startedMs) * 1_000) / 1_000;
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
    const line = { event: "rpc.call", method, protocol, status, durationMs };
    context.with(this.context, () => logger.debug(line, method));
  }
}

/** Made once: the strings that tell time series apart are the quicker to find for being the same ones. */
const nameOf = memoize(({ parent: service, name }: DescMethod) => `${service.typeName}/${name}`);

/** Returns the type of the error. */
function markFailed(span: Span, thrown: unknown, error: ConnectError): string {
  const type = thrown instanceof AppError ? thrown.code : statusNames[error.code];
  span.setStatus({ code: SpanStatusCode.ERROR, message: error.rawMessage });
  span.setAttribute("error.type", type);
  if (thrown instanceof Error) span.recordException(thrown);
  return type;
}

function traceIdOf(span: Span): string | undefined {
  const spanContext = span.spanContext();
  return isSpanContextValid(spanContext) ? spanContext.traceId : undefined;
}

const allCodes = Object.values(Code).filter((code): code is Code => typeof code === "number");
/** The names that gRPC uses: NotFound is NOT_FOUND. */
const statusNames = Object.fromEntries(allCodes.map((code) => [code, statusName(code)])) as Record<Code, string>;

function statusName(code: Code): string {
  if (code === Code.Canceled) return "CANCELLED";
  return Code[code].replaceAll(/(?<=[a-z])[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
}

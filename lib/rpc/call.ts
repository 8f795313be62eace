import { create, type DescMethod, fromBinary, type Message, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type Client, type CallOptions as GrpcOptions, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { context, propagation, type Span, SpanKind, type TextMapSetter, trace } from "@opentelemetry/api";
import { AppError } from "../errors.ts";
import { failSpan, startSpan } from "../telemetry/spans.ts";
import { appErrorFromGrpc } from "./client-errors.ts";

export interface CallOptions {
  /** Cancels the call: it fails with CANCELLED. */
  readonly signal?: AbortSignal;
  /** Milliseconds until the call fails with DEADLINE_EXCEEDED, retries included. */
  readonly deadlineMs?: number;
}

/** A method of a client, ready to be called. */
export interface Callable {
  readonly client: Client;
  /** Where the client calls, for messages. */
  readonly address: string;
  readonly method: DescMethod;
  /** Probes are not traced. */
  readonly traced: boolean;
}

/** The fields of a request message. */
export type CallRequest = MessageInitShape<DescMethod["input"]>;

const metadataSetter: TextMapSetter<Metadata> = { set: (metadata, key, value) => metadata.set(key, value) };

/** Makes a unary call. Rejects with an AppError. */
export async function callUnary(callable: Callable, request: CallRequest, options: CallOptions): Promise<Message> {
  const { span, metadata } = beginCall(callable);
  try {
    const response = await sendUnary(callable, request, metadata, options);
    span?.setAttribute("rpc.response.status_code", "OK");
    return response;
  } catch (error) {
    throw failCall(callable, span, error, options.signal);
  } finally {
    span?.end();
  }
}

/** Makes a server-streaming call. Throws an AppError; leaving the loop early cancels the call. */
export async function* callStream(
  callable: Callable,
  request: CallRequest,
  options: CallOptions,
): AsyncGenerator<Message> {
  const { path, serialize, deserialize, message } = encoded(callable.method, request);
  const { span, metadata } = beginCall(callable);
  const call = callable.client.makeServerStreamRequest(
    path,
    serialize,
    deserialize,
    message,
    metadata,
    grpcOptions(options),
  );
  // The error of a call that is cancelled after its loop was left has no other listener.
  call.on("error", () => {});
  const release = cancelOnAbort(options.signal, call);
  try {
    for await (const response of call) yield response;
    span?.setAttribute("rpc.response.status_code", "OK");
  } catch (error) {
    throw failCall(callable, span, error, options.signal);
  } finally {
    release();
    call.cancel();
    span?.end();
  }
}

function sendUnary(
  callable: Callable,
  request: CallRequest,
  metadata: Metadata,
  options: CallOptions,
): Promise<Message> {
  const { path, serialize, deserialize, message } = encoded(callable.method, request);
  return new Promise((resolve, reject) => {
    const done = (error: ServiceError | null, response?: Message) => {
      release();
      if (response === undefined) reject(error);
      else resolve(response);
    };
    const call = callable.client.makeUnaryRequest(
      path,
      serialize,
      deserialize,
      message,
      metadata,
      grpcOptions(options),
      done,
    );
    const release = cancelOnAbort(options.signal, call);
  });
}

/** Starts the call's span and puts its context into the metadata. */
function beginCall({ method, address, traced }: Callable): { span: Span | undefined; metadata: Metadata } {
  const metadata = new Metadata();
  if (!traced) return { span: undefined, metadata };
  const name = methodName(method);
  const span = startSpan(name, {
    kind: SpanKind.CLIENT,
    attributes: { "rpc.system.name": "grpc", "rpc.method": name, "server.address": address },
  });
  propagation.inject(trace.setSpan(context.active(), span), metadata, metadataSetter);
  return { span, metadata };
}

/** The error for the caller, put on the span too. */
function failCall(callable: Callable, span: Span | undefined, thrown: unknown, signal?: AbortSignal): AppError {
  const error = callError(callable, thrown, signal);
  if (span !== undefined) {
    failSpan(span, error);
    if (isServiceError(thrown)) span.setAttribute("rpc.response.status_code", status[thrown.code]);
  }
  return error;
}

function callError({ method, address }: Callable, thrown: unknown, signal?: AbortSignal): AppError {
  const name = methodName(method);
  if (signal?.aborted)
    return new AppError("CANCELLED", `${name} at ${address} was cancelled`, { cause: signal.reason });
  return isServiceError(thrown) ? appErrorFromGrpc(thrown, name, address) : AppError.from(thrown);
}

function methodName(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`;
}

function encoded({ parent, name, input, output }: DescMethod, request: CallRequest) {
  return {
    path: `/${parent.typeName}/${name}`,
    message: create(input, request),
    serialize: (message: Message) => {
      const bytes = toBinary(input, message);
      return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    },
    deserialize: (bytes: Buffer): Message => fromBinary(output, bytes),
  };
}

function grpcOptions({ deadlineMs }: CallOptions): GrpcOptions {
  return deadlineMs === undefined ? {} : { deadline: Date.now() + deadlineMs };
}

/** Returns how to stop listening. */
function cancelOnAbort(signal: AbortSignal | undefined, call: { cancel(): void }): () => void {
  const cancel = () => call.cancel();
  if (signal?.aborted) cancel();
  signal?.addEventListener("abort", cancel, { once: true });
  return () => signal?.removeEventListener("abort", cancel);
}

function isServiceError(thrown: unknown): thrown is ServiceError {
  return thrown instanceof Error && "code" in thrown && "metadata" in thrown;
}

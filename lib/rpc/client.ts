import type {
  DescMethod,
  DescMethodServerStreaming,
  DescMethodUnary,
  DescService,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import { Client } from "@grpc/grpc-js";
import { type Callable, type CallOptions, type CallRequest, callStream, callUnary } from "./call.ts";
import { channelCredentials, channelOptions, defaultRetry, type RetrySettings, targetOf } from "./channel.ts";

/** Deadline of a unary call where neither the client nor the call sets one. */
const defaultDeadlineMs = 30_000;

export interface ClientOptions {
  /** "host:port", with a name that may resolve to several addresses, or several IP addresses separated by commas. */
  readonly address: string;
  /** Deadline of unary calls in milliseconds, retries included; 30 s by default. Streams have none unless a call sets it. */
  readonly deadlineMs?: number;
  /** Four tries by default. Only UNAVAILABLE is tried again; say `false` where calling twice would do harm. */
  readonly retry?: RetrySettings | false;
}

/** A method as a function. Client-streaming methods have none: no service here needs to call one. */
type ClientMethod<Method extends DescMethod> =
  Method extends DescMethodUnary<infer Input, infer Output>
    ? (request: MessageInitShape<Input>, options?: CallOptions) => Promise<MessageShape<Output>>
    : Method extends DescMethodServerStreaming<infer Input, infer Output>
      ? (request: MessageInitShape<Input>, options?: CallOptions) => AsyncIterable<MessageShape<Output>>
      : never;

/** The unary and server-streaming methods of a service, and `close`, which frees the connections. */
export type RpcClient<Desc extends DescService> = {
  readonly [Name in keyof Desc["method"]]: ClientMethod<Desc["method"][Name]>;
} & { close(): void };

/**
 * A typed gRPC client. Every unary call has a deadline, every call a client span whose context travels along, and every
 * failure is an AppError: the one that the server threw, where it says so.
 *
 * @example
 * const predictions = createClient(PredictionService, { address: "127.0.0.1:7404" });
 * const { model } = await predictions.getModel({}, { deadlineMs: 1_000 });
 * @throws AppError CONFIGURATION_INVALID for an address that gRPC cannot use.
 */
export function createClient<Desc extends DescService>(service: Desc, options: ClientOptions): RpcClient<Desc> {
  const { address, deadlineMs = defaultDeadlineMs, retry = defaultRetry } = options;
  const client = new Client(targetOf(address), channelCredentials, channelOptions(service.typeName, retry));
  const traced = !service.typeName.startsWith("grpc.");
  const methods = Object.fromEntries(
    service.methods.map((method): [string, unknown] => [
      method.localName,
      clientMethod({ client, address, method, traced }, deadlineMs),
    ]),
  );
  // The descriptor that the methods are made from is the one that their types are derived from.
  return { ...methods, close: () => client.close() } as RpcClient<Desc>;
}

function clientMethod(callable: Callable, deadlineMs: number) {
  if (callable.method.methodKind === "unary") {
    return (request: CallRequest, options?: CallOptions) => callUnary(callable, request, { deadlineMs, ...options });
  }
  return (request: CallRequest, options: CallOptions = {}) => callStream(callable, request, options);
}

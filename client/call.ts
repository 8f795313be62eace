import type { DescMessage, DescMethodStreaming, DescMethodUnary, MessageInitShape } from "@bufbuild/protobuf";
import type { ContextValues, StreamResponse, Transport, UnaryResponse } from "@connectrpc/connect";

/** Values of the attribute `rpc.system.name`. */
export type RpcSystem = "connectrpc" | "grpc";

/** A transport of Connect that may hold connections. */
export interface ClientTransport extends Transport {
  /** Ends calls under way and frees the connections. */
  close?(): void;
  /** What spans call the protocol; "connectrpc" by default. */
  readonly rpcSystem?: RpcSystem;
}

/** Certificates and keys in PEM. */
export interface ClientTls {
  /** Certificates of those who may sign the server's. Default: those that Node trusts. */
  readonly ca?: string | Uint8Array;
  /** The client's own certificate, with those between it and one that the server trusts, and its key: both or neither. */
  readonly cert?: string | Uint8Array;
  readonly key?: string | Uint8Array;
}

/** What the constructor of Headers takes: a record, pairs or Headers. */
export type HeadersSource = NonNullable<ConstructorParameters<typeof Headers>[0]>;

interface CallSettings {
  readonly signal: AbortSignal | undefined;
  /** Time until the call fails, in milliseconds. Undefined or 0: none. */
  readonly timeoutMs: number | undefined;
  readonly headers: HeadersSource | undefined;
  readonly contextValues: ContextValues | undefined;
  /** Called with the address before each try. */
  readonly onTry?: (address: { readonly baseUrl: string; readonly rpcSystem: RpcSystem }) => void;
}

interface UnaryCall extends CallSettings {
  readonly kind: "unary";
  readonly method: DescMethodUnary;
  readonly input: MessageInitShape<DescMessage>;
}

interface StreamCall extends CallSettings {
  readonly kind: "stream";
  readonly method: DescMethodStreaming;
  readonly input: AsyncIterable<MessageInitShape<DescMessage>>;
}

/** A call as the layers of the client see it: what Connect gives a transport as six parameters, in one object. */
export type Call = UnaryCall | StreamCall;

/** Makes a call. A stream of answers has begun when the promise resolves: what fails before its first message rejects it. */
export type Send = (call: Call) => Promise<UnaryResponse | StreamResponse>;

/** Adds something to every call, such as retries. */
export type Layer = (next: Send) => Send;

/** The transport that Connect's clients take, from a function that makes calls. */
export function transportFromSend(send: Send): Transport {
  return {
    unary: (method, signal, timeoutMs, headers, input, contextValues) =>
      // What comes back is an answer of the method that was asked for; layers know methods without their types.
      send({ kind: "unary", method, signal, timeoutMs, headers, input, contextValues }) as Promise<never>,
    async stream(method, signal, timeoutMs, headers, messages, contextValues) {
      const input = method.methodKind === "server_streaming" ? await repeatable(messages) : messages;
      return send({ kind: "stream", method, signal, timeoutMs, headers, input, contextValues }) as Promise<never>;
    },
  };
}

/** Makes calls over a transport. */
export function sendOver(transport: Transport): Send {
  return async (call) => {
    const { signal, timeoutMs, headers, contextValues } = call;
    if (call.kind === "unary") {
      return transport.unary(call.method, signal, timeoutMs, headers, call.input, contextValues);
    }
    const response = await transport.stream(call.method, signal, timeoutMs, headers, call.input, contextValues);
    return call.method.methodKind === "server_streaming" ? begun(response) : response;
  };
}

async function begun(response: StreamResponse): Promise<StreamResponse> {
  const messages = response.message[Symbol.asyncIterator]();
  const first = await messages.next();
  async function* rest() {
    for (let item = first; !item.done; item = await messages.next()) yield item.value;
  }
  return { ...response, message: rest() };
}

/** The messages of a request, to be read as often as there are tries. */
async function repeatable<T>(messages: AsyncIterable<T>): Promise<AsyncIterable<T>> {
  const kept: T[] = [];
  for await (const message of messages) kept.push(message);
  return {
    async *[Symbol.asyncIterator]() {
      yield* kept;
    },
  };
}

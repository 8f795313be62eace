import { create, type DescMethod, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, type StreamResponse, type UnaryResponse } from "@connectrpc/connect";
import { type CallOptions, type ChannelCredentials, Client, credentials } from "@grpc/grpc-js";
import type { ClientTls, ClientTransport, HeadersSource } from "./call.ts";
import { errorFromStatus, headersFromMetadata, metadataFromHeaders } from "./grpc-metadata.ts";
import { openStream } from "./grpc-stream.ts";

const maxMessageBytes = 16 * 1024 * 1024;

/** A name that resolves to several addresses is called at each in turn; tries and deadlines are the layers' above. */
const channelOptions = {
  "grpc.service_config": JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
  "grpc.service_config_disable_resolution": 1,
  "grpc.enable_retries": 0,
  "grpc.enable_http_proxy": 0,
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
  // A server that is started again is called again soon.
  "grpc.initial_reconnect_backoff_ms": 10,
  "grpc.max_reconnect_backoff_ms": 1_000,
  // Room for a message on its way: with HTTP/2's default of 64 KiB images wait for acknowledgements.
  "grpc-node.flow_control_window": 256 * 1024,
  "grpc.max_receive_message_length": maxMessageBytes,
  "grpc.max_send_message_length": maxMessageBytes,
};

/** A call on the wire, as far as it can be ended from here. */
interface Cancellable {
  cancel(): void;
}

/**
 * gRPC over HTTP/2 by grpc-js, in the clear for http: and with TLS for https:. The first call opens the connection. TypeError if there are
 * certificates and nothing to use them for.
 */
export function createTransport(baseUrl: string, tls?: ClientTls): ClientTransport {
  const { protocol, hostname, port, pathname } = new URL(baseUrl);
  const isSecure = protocol === "https:";
  if (tls !== undefined && !isSecure)
    throw new TypeError(`tls is given, but ${baseUrl} is in the clear; begin it with https:`);
  const client = new Client(
    `dns:${hostname}:${port || (isSecure ? 443 : 80)}`,
    isSecure ? secureCredentials(tls) : credentials.createInsecure(),
    channelOptions,
  );
  const prefix = pathname.replace(/\/$/, "");
  const underWay = new Set<Cancellable>();
  let closed = false;

  /** Has the call ended when `signal` aborts or the transport is closed. Returns what to do when it has ended by itself. */
  function follow(call: Cancellable, signal: AbortSignal | undefined): () => void {
    const cancel = () => call.cancel();
    underWay.add(call);
    signal?.addEventListener("abort", cancel);
    if (signal?.aborted || closed) cancel();
    return () => {
      underWay.delete(call);
      signal?.removeEventListener("abort", cancel);
    };
  }

  function failure(thrown: unknown, signal: AbortSignal | undefined): ConnectError {
    if (signal?.aborted) return new ConnectError("the call was cancelled", Code.Canceled, undefined, [], signal.reason);
    if (closed) return new ConnectError("the client was closed", Code.FailedPrecondition);
    return errorFromStatus(thrown);
  }

  const settingsOf = (timeoutMs: number | undefined, headers: HeadersSource | undefined) => {
    const options: CallOptions = timeoutMs ? { deadline: Date.now() + timeoutMs } : {};
    return { options, metadata: metadataFromHeaders(headers) };
  };

  return {
    rpcSystem: "grpc",
    async unary(method, signal, timeoutMs, headers, input) {
      if (closed) throw failure(undefined, signal);
      const { path, serialize, deserialize } = wireOf(method, prefix);
      const { metadata, options } = settingsOf(timeoutMs, headers);
      const request = create(method.input, input);
      const ends = { header: new Headers(), trailer: new Headers() };
      const message = await new Promise<Message>((resolve, reject) => {
        const done = (error: unknown, answer?: Message) => {
          ended();
          if (answer === undefined) reject(failure(error, signal));
          else resolve(answer);
        };
        const call = client.makeUnaryRequest(path, serialize, deserialize, request, metadata, options, done);
        call.on("metadata", (received) => headersFromMetadata(received, ends.header));
        call.on("status", (status) => headersFromMetadata(status.metadata, ends.trailer));
        const ended = follow(call, signal);
      });
      // The method that was asked for has the types of both messages.
      return { stream: false, service: method.parent, method, ...ends, message } as UnaryResponse as never;
    },
    async stream(method, signal, timeoutMs, headers, messages) {
      if (closed) throw failure(undefined, signal);
      const { path, serialize, deserialize } = wireOf(method, prefix);
      const { metadata, options } = settingsOf(timeoutMs, headers);
      // On the wire the kinds of streams are alike.
      const call = client.makeBidiStreamRequest(path, serialize, deserialize, metadata, options);
      const ended = follow(call, signal);
      const requests = mapped(messages, (message) => create(method.input, message));
      const opened = openStream(call, requests, { ended, failure: (thrown) => failure(thrown, signal) });
      return { stream: true, service: method.parent, method, ...opened } as StreamResponse as never;
    },
    close() {
      closed = true;
      for (const call of underWay) call.cancel();
      client.close();
    },
  };
}

function secureCredentials({ ca, key, cert }: ClientTls = {}): ChannelCredentials {
  const pem = (text: string | Uint8Array | undefined) => (text === undefined ? null : Buffer.from(text));
  return credentials.createSsl(pem(ca), pem(key), pem(cert));
}

function wireOf({ parent, name, input, output }: DescMethod, prefix: string) {
  return {
    path: `${prefix}/${parent.typeName}/${name}`,
    serialize: (message: Message) => {
      const bytes = toBinary(input, message);
      return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    },
    deserialize: (bytes: Buffer): Message => fromBinary(output, bytes),
  };
}

async function* mapped<From, To>(items: AsyncIterable<From>, change: (item: From) => To): AsyncGenerator<To> {
  for await (const item of items) yield change(item);
}

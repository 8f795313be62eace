import type { DescService } from "@bufbuild/protobuf";
import { type CallOptions, type Client, createClient, type Transport } from "@connectrpc/connect";

/** `request` is one message, or for a stream in both directions all of them. */
type Stream = (request: object, options?: CallOptions) => AsyncIterable<unknown>;

/**
 * Connect's client of a service, but whoever leaves a stream before its end also ends the call: Connect itself goes on
 * receiving until its signal aborts.
 */
export function createServiceClient<Service extends DescService>(
  service: Service,
  transport: Transport,
): Client<Service> {
  const client = createClient(service, transport);
  const functions = client as Record<string, Stream>;
  for (const { localName, methodKind } of service.methods) {
    const stream = functions[localName];
    const givesStream = methodKind === "server_streaming" || methodKind === "bidi_streaming";
    if (!givesStream || stream === undefined) continue;
    functions[localName] = (request, options) => endingWithItsLoop(stream, request, options);
  }
  return client;
}

async function* endingWithItsLoop(stream: Stream, request: object, options: CallOptions = {}): AsyncGenerator<unknown> {
  const { signal } = options;
  const ending = new AbortController();
  const cancel = () => ending.abort(signal?.reason);
  signal?.addEventListener("abort", cancel);
  if (signal?.aborted) cancel();
  const messages = stream(request, { ...options, signal: ending.signal })[Symbol.asyncIterator]();
  try {
    for (let item = await messages.next(); !item.done; item = await messages.next()) yield item.value;
  } finally {
    signal?.removeEventListener("abort", cancel);
    ending.abort();
    // Lets the layers below see the end. What it fails with is the cancellation, or has been thrown above already.
    await messages.next().catch(() => {});
  }
}

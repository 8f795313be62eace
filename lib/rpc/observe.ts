import type { Interceptor } from "@connectrpc/connect";
import { joinSignals, onAbort, orAborted } from "../abort.ts";
import { AppError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { type IncomingCall, ObservedCall } from "./observed-call.ts";

/**
 * The outermost interceptor of a server: a span whose parent is the caller's, a log line, the error that a client
 * reads, and an end to every call whose signal aborts, even if its handler does not listen.
 * Streams are also ended by `draining`; unary calls may finish while the server stops.
 */
export function observeCalls(logger: Logger, draining: AbortSignal): Interceptor {
  return (next) => async (request) => {
    const { method, header: headers } = request;
    const call = new ObservedCall({ method, protocol: protocolOf(headers), headers }, logger);
    const joined = request.stream ? joinSignals(request.signal, draining) : undefined;
    const signal = joined?.signal ?? request.signal;
    const release = () => joined?.[Symbol.dispose]();
    try {
      const response = await inCall(call, signal, () => next({ ...request, signal }));
      if (response.stream) {
        return { ...response, message: observeMessages(response.message, call, signal, release) };
      }
      call.succeed();
      return response;
    } catch (thrown) {
      release();
      throw call.fail(thrown, signal);
    }
  };
}

/** The messages of a stream, each made inside the call's span. `release` is called when the stream is over. */
async function* observeMessages<T>(
  messages: AsyncIterable<T>,
  call: ObservedCall,
  signal: AbortSignal,
  release: () => void,
): AsyncGenerator<T> {
  const iterator = messages[Symbol.asyncIterator]();
  const nextMessage = () =>
    inCall(call, signal, () => iterator.next()).catch((thrown: unknown) => {
      throw call.fail(thrown, signal);
    });
  const leave = () => {
    call.fail(signal.aborted ? signal.reason : new AppError("CANCELLED", "the client went away"), signal);
    release();
    // Not awaited: a handler that ignores its signal would hold the stream open.
    iterator.return?.().catch(() => {});
  };
  // While a message waits for a client that has gone, nobody asks for the next one: this generator is not resumed.
  const stopListening = onAbort(signal, () => setImmediate(leave));
  try {
    for (let item = await nextMessage(); !item.done; item = await nextMessage()) yield item.value;
    call.succeed();
  } finally {
    stopListening();
    leave();
  }
}

function protocolOf(headers: Headers): IncomingCall["protocol"] {
  const contentType = headers.get("content-type") ?? "";
  if (contentType.startsWith("application/grpc-web")) return "grpc-web";
  return contentType.startsWith("application/grpc") ? "grpc" : "connect";
}

/** Does a call's work inside its span, and rejects with the signal's reason as soon as that aborts. */
export function inCall<T>(call: ObservedCall, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  return call.run(async () => {
    signal.throwIfAborted();
    return orAborted(work(), signal);
  });
}

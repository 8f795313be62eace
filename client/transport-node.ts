import { Code, ConnectError } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import type { ClientTransport } from "./call.ts";

const maxMessageBytes = 16 * 1024 * 1024;

/** Room for a message on its way: with HTTP/2's default of 64 KiB images wait for acknowledgements. Much more makes Node's peers stall. */
const windowBytes = 256 * 1024;

/** gRPC over HTTP/2, in the clear for http: and with TLS for https:. One connection, opened by the first call. */
export function createTransport(baseUrl: string): ClientTransport {
  const pings = { pingIntervalMs: 30_000, pingTimeoutMs: 10_000 };
  const sessionManager = new Http2SessionManager(baseUrl, pings, {
    settings: { initialWindowSize: windowBytes },
    // In MB. Node's 10 MB breaks connections with many large images on their way.
    maxSessionMemory: 100,
  });
  const transport = createGrpcTransport({
    baseUrl,
    sessionManager,
    readMaxBytes: maxMessageBytes,
    writeMaxBytes: maxMessageBytes,
    acceptCompression: [],
  });
  return {
    ...transport,
    close: () => sessionManager.abort(new ConnectError("the client was closed", Code.FailedPrecondition)),
  };
}

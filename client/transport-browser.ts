import { Code, ConnectError } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import type { ClientTls, ClientTransport } from "./call.ts";

/** Connect over fetch, in binary. The browser keeps the connections, and their certificates: TypeError if it is given any. */
export function createTransport(baseUrl: string, tls?: ClientTls): ClientTransport {
  if (tls !== undefined) throw new TypeError("tls is for Node; a browser trusts whom its user trusts");
  const { unary, stream } = createConnectTransport({ baseUrl, useBinaryFormat: true, fetch: fetchOrUnavailable });
  return {
    unary,
    async stream(method, ...call) {
      if (method.methodKind === "server_streaming") return stream(method, ...call);
      const text = `${method.name} sends a stream, which fetch cannot; call a method that takes one message`;
      throw new ConnectError(text, Code.Unimplemented);
    },
  };
}

/** A server that is not reached is UNAVAILABLE. fetch says only "Failed to fetch", which Connect takes for a mistake of its own. */
const fetchOrUnavailable: typeof fetch = async (input, init) => {
  try {
    return await fetch(input, init);
  } catch (cause) {
    if (init?.signal?.aborted) throw cause;
    throw new ConnectError(
      `${new URL(String(input)).origin} cannot be reached`,
      Code.Unavailable,
      undefined,
      [],
      cause,
    );
  }
};

import { Code, ConnectError } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import type { ClientTransport } from "./call.ts";

/** Connect over fetch, in binary. The browser keeps the connections. */
export function createTransport(baseUrl: string): ClientTransport {
  return createConnectTransport({ baseUrl, useBinaryFormat: true, fetch: fetchOrUnavailable });
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

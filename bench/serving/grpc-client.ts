/** Unary gRPC calls on bare HTTP/2, at a fraction of what a whole client costs: the generator shall not be the limit. */
import { once } from "node:events";
import { type ClientHttp2Session, connect, type IncomingHttpHeaders } from "node:http2";
import type { Target } from "./load.ts";
import type { LoadClient, Outcome } from "./load-client.ts";

/** As several clients have them. Node's servers limit the calls of one connection, not of all. */
const connections = 8;
const windowBytes = 256 * 1024;
const prefixBytes = 5;
const resourceExhausted = "8";

export async function connectGrpc({ url, headers, bodies }: Target): Promise<LoadClient> {
  const { origin, pathname } = new URL(url);
  const sessions = await Promise.all(Array.from({ length: connections }, () => openSession(origin)));
  const messages = bodies.map(framed);
  const requestHeaders = {
    ":method": "POST",
    ":path": pathname,
    "content-type": "application/grpc",
    te: "trailers",
    ...headers,
  };
  return {
    send: (index) =>
      new Promise((resolve) => {
        const session = sessions[index % connections];
        const message = messages[index % messages.length];
        if (session === undefined || session.destroyed) return resolve(failed("the connection is gone"));
        const stream = session.request(requestHeaders);
        const chunks: Buffer[] = [];
        let last: IncomingHttpHeaders = {};
        const note = (received: IncomingHttpHeaders): void => {
          last = received;
        };
        stream.on("response", note);
        stream.on("trailers", note);
        stream.on("data", (chunk: Buffer) => chunks.push(chunk));
        stream.on("error", (error) => resolve(failed(error.message)));
        stream.on("end", () => resolve(outcomeOf(last, chunks)));
        stream.on("close", () => resolve(failed("the stream was closed without an answer")));
        stream.end(message);
      }),
    close: async () => {
      await Promise.all(sessions.map((session) => new Promise<void>((resolve) => session.close(resolve))));
    },
  };
}

async function openSession(origin: string): Promise<ClientHttp2Session> {
  const session = connect(origin, { settings: { initialWindowSize: windowBytes, enablePush: false } });
  await once(session, "connect");
  // Its streams fail with it, and say so.
  session.on("error", () => undefined);
  return session;
}

function framed(body: Uint8Array): Buffer {
  const message = Buffer.alloc(prefixBytes + body.length);
  message.writeUInt32BE(body.length, 1);
  message.set(body, prefixBytes);
  return message;
}

function outcomeOf(headers: IncomingHttpHeaders, chunks: readonly Buffer[]): Outcome {
  const status = headers["grpc-status"];
  if (status === "0") return { kind: "answered", body: Buffer.concat(chunks).subarray(prefixBytes) };
  if (status === resourceExhausted) return { kind: "refused" };
  return failed(`gRPC status ${status}: ${headers["grpc-message"]}`);
}

function failed(reason: string): Outcome {
  return { kind: "failed", reason };
}

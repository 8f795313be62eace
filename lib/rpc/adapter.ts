import { constants, Http2ServerResponse } from "node:http2";
import type { ConnectRouter } from "@connectrpc/connect";
import type { UniversalHandler, UniversalServerResponse } from "@connectrpc/connect/protocol";
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from "@connectrpc/connect-node";
import type { Logger } from "../log.ts";
import { limitDeadline } from "./deadline.ts";
import type { HttpHandler, HttpRequest, HttpResponse } from "./port.ts";

export interface AdapterOptions {
  readonly logger: Logger;
  /** Deadline of a unary call whose client sets none. */
  readonly defaultDeadlineMs: number;
  /** What a longer deadline is cut to. */
  readonly maxDeadlineMs: number;
  /** Takes the paths that the router does not know. */
  readonly fallback: HttpHandler;
}

/**
 * Serves a router's methods over HTTP. Unlike the adapter of connect-node it answers a request without a usable
 * Host with 400 instead of throwing, gives unary calls a deadline, cuts those that are too long, and sends gRPC errors in the form
 * that gRPC clients may try again (see {@link sendGrpcResponse}).
 */
export function createAdapter(router: ConnectRouter, options: AdapterOptions): HttpHandler {
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));
  return (request, response) => {
    const [path = ""] = (request.url ?? "").split("?", 1);
    const handler = handlers.get(path);
    if (handler === undefined) {
      options.fallback(request, response);
      return;
    }
    const defaultMs = handler.method.methodKind === "unary" ? options.defaultDeadlineMs : undefined;
    limitDeadline(request.headers, { defaultMs, maxMs: options.maxDeadlineMs });
    serve(handler, request, response).catch((error: unknown) => {
      // The peer has gone, or its request was not HTTP as it should be: nothing that anybody here can mend.
      options.logger.debug({ event: "rpc.interrupted", path, error }, "a request could not be answered");
      if (!response.headersSent) response.writeHead(400);
      response.end();
    });
  };
}

async function serve(handler: UniversalHandler, request: HttpRequest, response: HttpResponse): Promise<void> {
  const answer = await handler(universalRequestFromNodeRequest(request, response, undefined, undefined));
  if (isGrpc(request) && response instanceof Http2ServerResponse) await sendGrpcResponse(answer, response);
  else await universalResponseToNodeResponse(answer, response);
}

/**
 * A gRPC answer without a message is sent as trailers only. Clients take headers as the point after which a call must
 * not be tried again, so that an error behind them would defeat every retry policy.
 */
async function sendGrpcResponse(answer: UniversalServerResponse, response: Http2ServerResponse): Promise<void> {
  const messages = answer.body?.[Symbol.asyncIterator]();
  const first = await messages?.next();
  if (messages !== undefined && first?.done === false) {
    await universalResponseToNodeResponse({ ...answer, body: resumed(first.value, messages) }, response);
    return;
  }
  const { stream } = response;
  if (stream.destroyed) return;
  const headers = { ...Object.fromEntries(answer.header ?? []), ...Object.fromEntries(answer.trailer ?? []) };
  stream.respond({ ":status": answer.status, ...headers }, { endStream: true });
  // The client may still be sending a request that nobody will read.
  if (!stream.readableEnded) stream.close(constants.NGHTTP2_NO_ERROR);
}

/** An iteration whose first item has already been taken. */
async function* resumed<T>(first: T, rest: AsyncIterator<T>): AsyncGenerator<T> {
  try {
    yield first;
    yield* { [Symbol.asyncIterator]: () => rest };
  } finally {
    await rest.return?.();
  }
}

function isGrpc({ headers }: HttpRequest): boolean {
  const contentType = headers["content-type"] ?? "";
  return contentType === "application/grpc" || contentType.startsWith("application/grpc+");
}

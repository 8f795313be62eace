/** A server with nothing but connections of HTTP/2, and a peer of it that sends and sees frames. */
import { once } from "node:events";
import { createServer as createHttp2Server, type IncomingHttpHeaders } from "node:http2";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import type { TestContext } from "node:test";
import { type ConnectionLimits, ServerConnection } from "../../../lib/http2/connection.ts";
import { createFrameReader, type Frame, frameType, preface, settingsFrame } from "../../../lib/http2/frames.ts";
import { HeaderDecoder, headerBlock } from "../../../lib/http2/hpack.ts";
import type { RequestStream } from "../../../lib/http2/request-stream.ts";

export const windowBytes = 65_535;

/** A request that the server took. */
export interface Taken {
  readonly stream: RequestStream;
  readonly headers: IncomingHttpHeaders;
  readonly chunks: Buffer[];
  isRead: boolean;
  isAborted: boolean;
}

export interface TestServer {
  readonly port: number;
  /** What it took: every path below /taken. */
  readonly taken: readonly Taken[];
  /** Its connections, in the order in which they came. */
  readonly connections: readonly ServerConnection[];
}

/**
 * A server that takes what is asked for below /taken and answers nothing by itself. Anything else is answered by Node, which sends back what it is sent, and
 * for /large/N so many bytes. What is sent to /ignored nobody reads.
 */
export async function startServer(t: TestContext, limits: Partial<ConnectionLimits> = {}): Promise<TestServer> {
  const taken: Taken[] = [];
  const connections: ServerConnection[] = [];
  const http2 = createHttp2Server();
  const whole = { maxConcurrentStreams: 100, windowBytes, ...limits };
  http2.on("session", (session) => session.setLocalWindowSize(whole.windowBytes));
  http2.on("sessionError", () => undefined);
  http2.on("stream", (stream, headers) => {
    stream.on("error", () => undefined);
    // Node gives requests that it has found malformed as well.
    if (stream.destroyed || headers[":path"] === "/ignored") return;
    stream.respond({ ":status": 200 });
    const [, size] = /^\/large\/(\d+)$/.exec(headers[":path"] ?? "") ?? [];
    if (size !== undefined) stream.end(Buffer.alloc(Number(size), "x"));
    else stream.pipe(stream);
  });
  const take = (stream: RequestStream, headers: IncomingHttpHeaders): boolean => {
    if (!headers[":path"]?.startsWith("/taken")) return false;
    const request: Taken = { stream, headers, chunks: [], isRead: false, isAborted: false };
    stream.receiver = {
      data: (chunk) => request.chunks.push(chunk),
      end: () => {
        request.isRead = true;
      },
      abort: () => {
        request.isAborted = true;
      },
    };
    taken.push(request);
    return true;
  };
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    const serve = (tunnel: unknown) => http2.emit("connection", tunnel);
    connections.push(new ServerConnection(socket, { take, serve }, whole));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, taken, connections };
}

export interface Peer {
  readonly socket: Socket;
  /** All frames that have come. */
  readonly frames: readonly Frame[];
  send(...frames: readonly Buffer[]): void;
  /** The first frame that is so, of those that have come and will. Rejects when the connection is closed without one. */
  next(isWanted: (frame: Frame) => boolean): Promise<Frame>;
  /** Resolves when the server has read all that was sent to it. */
  settled(): Promise<void>;
  /** The headers of a frame, in the order in which they were sent. */
  headersOf(frame: Frame): Readonly<Record<string, string>>;
  readonly closed: Promise<unknown>;
}

/** Connects, with settings of its own. */
export async function connectPeer(t: TestContext, port: number, settings: ReadonlyMap<number, number> = new Map()) {
  const socket = connect({ port, host: "127.0.0.1", noDelay: true });
  socket.on("error", () => undefined);
  t.after(() => socket.destroy());
  const frames: Frame[] = [];
  const blocks = new Map<Frame, Readonly<Record<string, string>>>();
  const decoder = new HeaderDecoder(65_535);
  const waiting = new Set<() => void>();
  const read = createFrameReader((frame) => {
    frames.push(frame);
    if (frame.type !== frameType.headers) return;
    const list = decoder.decode(frame.payload);
    const pairs = list.flatMap((name, at) => (at % 2 === 0 ? [[name, list[at + 1] ?? ""] as const] : []));
    blocks.set(frame, Object.fromEntries(pairs));
  });
  const tell = (): void => {
    for (const look of waiting) look();
  };
  socket.on("data", (chunk: Buffer) => {
    read(chunk);
    tell();
  });
  const closed = once(socket, "close");
  socket.on("close", tell);
  await once(socket, "connect");
  socket.write(Buffer.concat([preface, settingsFrame(settings)]));
  let pings = 0;
  const peer: Peer = {
    socket,
    frames,
    closed,
    send: (...sent) => void socket.write(Buffer.concat(sent)),
    next: (isWanted) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          const found = frames.find(isWanted);
          if (found !== undefined) resolve(found);
          else if (socket.destroyed) reject(new Error("the connection is closed"));
          else return;
          waiting.delete(look);
        };
        waiting.add(look);
        look();
      }),
    async settled() {
      const payload = Buffer.alloc(8);
      payload.writeUInt32BE(++pings);
      socket.write(Buffer.concat([Buffer.of(0, 0, 8, frameType.ping, 0, 0, 0, 0, 0), payload]));
      await peer.next(({ type, payload: answer }) => type === frameType.ping && answer.equals(payload));
    },
    headersOf: (frame) => blocks.get(frame) ?? {},
  };
  return peer;
}

/** A block of the headers of a request. */
export function requestHeaders(path: string, more: Readonly<Record<string, string>> = {}): Buffer {
  const headers = { ":method": "POST", ":scheme": "http", ":path": path, ":authority": "test", ...more };
  return headerBlock(Object.entries(headers));
}

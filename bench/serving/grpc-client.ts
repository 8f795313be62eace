/**
 * Unary gRPC calls at a fraction of what a whole client costs: the generator shall not be the limit. Of Node's own HTTP/2 each stream takes as
 * much processor time as a small network needs for an image, and to collect those that are over holds the generator for 10 ms and more
 * at a time, both of which would count as the server's. So the frames are written and read here.
 */
import { once } from "node:events";
import { connect as connectSocket, type Socket } from "node:net";
import {
  createFrameReader,
  defaultWindowBytes,
  type Frame,
  flag,
  frame,
  frameType,
  headBytes,
  largest,
  maxFrameBytes,
  preface,
  readSettings,
  setting,
  settingsAck,
  settingsFrame,
  unpadded,
  windowUpdateFrame,
  writeHead,
} from "../../lib/http2/frames.ts";
import { createHeaderJoiner } from "../../lib/http2/header-blocks.ts";
import { HeaderDecoder, type HeaderList, headerBlock } from "../../lib/http2/hpack.ts";
import type { Target } from "./load.ts";
import type { LoadClient, Outcome } from "./load-client.ts";

/** As several clients have them. Node's servers limit the calls of one connection, not of all. */
const connections = 8;
const prefixBytes = 5;
const resourceExhausted = "8";
/** What the server may send ahead, on a stream and on a connection. */
const windowBytes = largest;
/** What this client says of itself: its headers need no table, and answers come as fast as they can. */
const settings: ReadonlyMap<number, number> = new Map([
  [setting.headerTableSize, 0],
  [setting.enablePush, 0],
  [setting.initialWindowSize, windowBytes],
]);
/** Of an answer. */
const maxHeaderBytes = 65_536;
/** Bytes of answers after which the server is told that they are read. */
const readBytes = 2 ** 30;

export async function connectGrpc({ url, headers, bodies }: Target): Promise<LoadClient> {
  const { hostname, port, pathname, host } = new URL(url);
  const pseudo = { ":method": "POST", ":scheme": "http", ":path": pathname, ":authority": host };
  const block = headerBlock(
    Object.entries({ ...pseudo, "content-type": "application/grpc", te: "trailers", ...headers }),
  );
  const open = () => openConnection({ host: hostname, port: Number(port) }, block);
  const opened = await Promise.all(Array.from({ length: connections }, open));
  const messages = bodies.map(framed);
  return {
    send: (index) =>
      new Promise((resolve) => {
        const message = messages[index % messages.length];
        if (message !== undefined) opened[index % connections]?.call(message, resolve);
      }),
    close: async () => {
      await Promise.all(opened.map((connection) => connection.close()));
    },
  };
}

function framed(body: Uint8Array): Buffer {
  const message = Buffer.alloc(prefixBytes + body.length);
  message.writeUInt32BE(body.length, 1);
  message.set(body, prefixBytes);
  return message;
}

type Answer = (outcome: Outcome) => void;

interface Call {
  readonly message: Buffer;
  readonly answer: Answer;
  /** What has come of the answer. */
  readonly chunks: Buffer[];
}

/** One connection and the calls on it. */
class Connection {
  readonly #socket: Socket;
  readonly #write: (bytes: Buffer) => void;
  readonly #headers: Buffer;
  readonly #waiting: Call[] = [];
  readonly #underWay = new Map<number, Call>();
  #nextId = 1;
  #maxUnderWay = Number.POSITIVE_INFINITY;
  #streamWindow = defaultWindowBytes;
  #window = defaultWindowBytes;
  #unread = 0;
  #goneBecause: string | undefined;
  readonly #decoder = new HeaderDecoder(maxHeaderBytes);
  #greeted = (): void => {};
  readonly greeting = new Promise<void>((resolve) => (this.#greeted = resolve));

  /** @param headers The block of each request's headers. */
  constructor(socket: Socket, headers: Buffer) {
    this.#socket = socket;
    this.#write = createWriter(socket);
    this.#headers = headers;
    const join = createHeaderJoiner(maxHeaderBytes);
    const read = createFrameReader((received) => {
      const whole = join(received);
      if (whole !== undefined) this.#takers[whole.type]?.(whole);
    });
    socket.on("data", read);
    socket.on("error", (error) => this.#fail(error.message));
    socket.on("close", () => this.#fail("the connection is gone"));
    const window = windowUpdateFrame(windowBytes - defaultWindowBytes);
    this.#write(Buffer.concat([preface, settingsFrame(settings), window]));
  }

  call(message: Buffer, answer: Answer): void {
    if (this.#goneBecause !== undefined) {
      answer(failed(this.#goneBecause));
      return;
    }
    this.#waiting.push({ message, answer, chunks: [] });
    this.#sendWaiting();
  }

  async close(): Promise<void> {
    if (this.#socket.destroyed) return;
    // Not by `once` of events, which rejects if the connection breaks instead of ending.
    const closed = new Promise<void>((resolve) => this.#socket.once("close", () => resolve()));
    this.#socket.end();
    await closed;
  }

  #sendWaiting(): void {
    for (let call = this.#waiting[0]; call !== undefined; call = this.#waiting[0]) {
      const { message } = call;
      if (message.length > this.#streamWindow) {
        this.#fail(`a message of ${message.length} bytes is larger than the server's window`);
        return;
      }
      if (this.#underWay.size >= this.#maxUnderWay || message.length > this.#window) return;
      this.#waiting.shift();
      this.#window -= message.length;
      this.#underWay.set(this.#nextId, call);
      this.#write(requestFrames(this.#nextId, this.#headers, message));
      this.#nextId += 2;
    }
  }

  #fail(reason: string): void {
    this.#goneBecause ??= reason;
    this.#socket.destroy();
    this.#greeted();
    const calls = [...this.#underWay.values(), ...this.#waiting];
    this.#underWay.clear();
    this.#waiting.length = 0;
    for (const { answer } of calls) answer(failed(this.#goneBecause));
  }

  #end(streamId: number, outcome: (call: Call) => Outcome): void {
    const call = this.#underWay.get(streamId);
    if (call === undefined) return;
    this.#underWay.delete(streamId);
    call.answer(outcome(call));
    this.#sendWaiting();
  }

  #takeHeaders({ flags, streamId, payload }: Frame): void {
    const headers = this.#decoder.decode(payload);
    // Those before the message say nothing that is needed.
    if ((flags & flag.endStream) === 0) return;
    this.#end(streamId, ({ chunks }) => outcomeOf(headers, chunks));
  }

  #takeData(received: Frame): void {
    const { streamId, payload } = received;
    this.#underWay.get(streamId)?.chunks.push(unpadded(received));
    this.#unread += payload.length;
    if (this.#unread < readBytes) return;
    this.#write(windowUpdateFrame(this.#unread));
    this.#unread = 0;
  }

  #takeSettings({ flags, payload }: Frame): void {
    if ((flags & flag.ack) !== 0) return;
    const theirs = readSettings(payload);
    this.#maxUnderWay = theirs.get(setting.maxConcurrentStreams) ?? this.#maxUnderWay;
    this.#streamWindow = theirs.get(setting.initialWindowSize) ?? this.#streamWindow;
    this.#write(settingsAck);
    this.#greeted();
    this.#sendWaiting();
  }

  #takeWindowUpdate({ streamId, payload }: Frame): void {
    // What is said of a stream does not matter: each message fits into the window that it begins with.
    if (streamId === 0) this.#window += payload.readUInt32BE();
    this.#sendWaiting();
  }

  readonly #takers: Readonly<Record<number, (received: Frame) => void>> = {
    [frameType.data]: (received) => this.#takeData(received),
    [frameType.headers]: (received) => this.#takeHeaders(received),
    [frameType.settings]: (received) => this.#takeSettings(received),
    [frameType.windowUpdate]: (received) => this.#takeWindowUpdate(received),
    [frameType.reset]: ({ streamId, payload }) =>
      this.#end(streamId, () => failed(`the stream was reset with HTTP/2 code ${payload.readUInt32BE()}`)),
    [frameType.goAway]: ({ payload }) =>
      this.#fail(`the server closed the connection with HTTP/2 code ${payload.readUInt32BE(4)}`),
    [frameType.ping]: (received) => {
      if ((received.flags & flag.ack) === 0) this.#write(frame({ ...received, flags: flag.ack }));
    },
  };
}

async function openConnection(address: { host: string; port: number }, headers: Buffer): Promise<Connection> {
  const socket = connectSocket({ ...address, noDelay: true });
  await once(socket, "connect");
  const connection = new Connection(socket, headers);
  await connection.greeting;
  return connection;
}

/** Writes together what is written in one turn of the event loop. */
function createWriter(socket: Socket): (bytes: Buffer) => void {
  return (bytes) => {
    // The server may still be asking for something when this side has ended.
    if (!socket.writable) return;
    if (socket.writableCorked === 0) {
      socket.cork();
      process.nextTick(() => socket.uncork());
    }
    socket.write(bytes);
  };
}

function requestFrames(streamId: number, block: Buffer, message: Buffer): Buffer {
  const parts = Math.max(1, Math.ceil(message.length / maxFrameBytes));
  const bytes = Buffer.allocUnsafe(headBytes + block.length + parts * headBytes + message.length);
  writeHead(bytes, 0, { type: frameType.headers, flags: flag.endHeaders, streamId, length: block.length });
  block.copy(bytes, headBytes);
  let at = headBytes + block.length;
  for (let part = 0; part < parts; part++) {
    const start = part * maxFrameBytes;
    const end = Math.min(message.length, start + maxFrameBytes);
    const flags = part === parts - 1 ? flag.endStream : 0;
    writeHead(bytes, at, { type: frameType.data, flags, streamId, length: end - start });
    at += headBytes + message.copy(bytes, at + headBytes, start, end);
  }
  return bytes;
}

function outcomeOf(trailers: HeaderList, chunks: readonly Buffer[]): Outcome {
  const at = trailers.indexOf("grpc-status");
  const status = at < 0 ? undefined : trailers[at + 1];
  if (status === "0") return { kind: "answered", body: Buffer.concat(chunks).subarray(prefixBytes) };
  if (status === resourceExhausted) return { kind: "refused" };
  return failed(status === undefined ? "the answer has no gRPC status" : `gRPC status ${status}`);
}

function failed(reason: string): Outcome {
  return { kind: "failed", reason };
}

/**
 * Requests that go on to Node's HTTP/2. It is given a connection of its own, on which there are only these, with the numbers that their streams have on the
 * peer's: what is about a stream goes from one to the other as it is, and what is about the connection is between Node and here.
 */
import { Duplex } from "node:stream";
import {
  createFrameReader,
  defaultWindowBytes,
  errorCode,
  type Frame,
  flag,
  frame,
  frameType,
  headBytes,
  headerFrames,
  preface,
  setting,
  settingsAck,
  settingsFrame,
  windowUpdateFrame,
  writeHead,
} from "./frames.ts";
import { type HeaderList, headerBlock } from "./hpack.ts";

/** The peer's connection. */
export interface TunnelPeer {
  /** Serves HTTP/2 over something like a socket. */
  readonly serve: (socket: Duplex) => void;
  readonly writeHeaders: (streamId: number, block: Buffer, endStream: boolean) => void;
  readonly write: (bytes: Buffer) => void;
  /** Takes of the window of the connection as much as there is, at most so many bytes. */
  readonly takeSendWindow: (wanted: number) => number;
  /** So many bytes of the peer have been read. */
  readonly credit: (bytes: number) => void;
  /** The connection has to end. */
  readonly fail: (code: number, text: string) => void;
  /** A stream has ended, and whether the peer had ended it. */
  readonly noteEnd: (streamId: number, isRead: boolean) => void;
}

/** Which sides of a stream are closed. */
interface Ends {
  read: boolean;
  answered: boolean;
}

export class Tunnel {
  readonly #peer: TunnelPeer;
  readonly #streams = new Map<number, Ends>();
  #initialWindow = defaultWindowBytes;
  /** What Node reads. It is there when a request is. */
  #socket: Duplex | undefined;
  /** What Node is still to be given, and whether there is a turn for that. */
  #unread: Buffer[] = [];
  #isGiving = false;
  /** Headers of Node of which not all frames have come. */
  #unfinished: { readonly first: Frame; readonly blocks: Buffer[] } | undefined;
  /** What of Node's frames waits for the connection's window, in their order. */
  #waiting: Frame[] = [];
  /** How much Node's window of the connection is behind the peer's. */
  #uncounted: number;

  /** @param windowBytes The peer's window of the connection, and of each stream. */
  constructor(peer: TunnelPeer, windowBytes: number) {
    this.#peer = peer;
    this.#uncounted = windowBytes - defaultWindowBytes;
  }

  get size(): number {
    return this.#streams.size;
  }

  has(streamId: number): boolean {
    return this.#streams.has(streamId);
  }

  /** A request's headers or trailers. */
  sendHeaders(streamId: number, list: HeaderList, endStream: boolean): void {
    this.#open();
    const ends = this.#streams.get(streamId) ?? { read: false, answered: false };
    this.#streams.set(streamId, ends);
    this.#give(headerFrames(streamId, headerBlock(pairs(list)), endStream));
    if (endStream) this.#end(streamId, ends, "read");
  }

  /** Anything else of a stream. */
  send(received: Frame): void {
    const { type, flags, streamId } = received;
    const ends = this.#streams.get(streamId);
    if (ends === undefined) return;
    this.#give(frame(received));
    if (type === frameType.reset) this.#forget(streamId, true);
    else if (type === frameType.data && (flags & flag.endStream) !== 0) this.#end(streamId, ends, "read");
  }

  /** The window with which a stream begins, as the peer wants it. */
  setInitialWindow(bytes: number): void {
    this.#initialWindow = bytes;
    this.#give(settingsFrame(new Map([[setting.initialWindowSize, bytes]])));
  }

  /** There is more of the connection's window. */
  sendOn(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const received of waiting) this.#pass(received);
  }

  close(): void {
    this.#streams.clear();
    this.#waiting = [];
    // Not while Node writes: see `#give`.
    process.nextTick(() => this.#socket?.destroy());
  }

  /** Node must not be given anything while it writes, which would end the process; and what comes together is read together. */
  #give(bytes: Buffer): void {
    if (this.#socket === undefined) return;
    this.#unread.push(bytes);
    if (this.#isGiving) return;
    this.#isGiving = true;
    process.nextTick(() => {
      const unread = Buffer.concat(this.#unread);
      this.#unread = [];
      this.#isGiving = false;
      if (this.#socket?.destroyed === false) this.#socket.push(unread);
    });
  }

  #open(): void {
    if (this.#socket !== undefined) return;
    const read = createFrameReader((received) => this.#take(received));
    const socket = new Duplex({
      read() {},
      write(chunk: Buffer, _encoding, done) {
        read(chunk);
        done();
      },
    });
    this.#socket = socket;
    socket.on("error", () => undefined);
    socket.on("close", () => {
      if (this.#streams.size > 0) this.#peer.fail(errorCode.internalError, "the requests cannot be answered");
    });
    // What Node sends is not compressed by a table, of which there would have to be one for both.
    const settings = new Map<number, number>([
      [setting.headerTableSize, 0],
      [setting.initialWindowSize, this.#initialWindow],
    ]);
    this.#give(Buffer.concat([preface, settingsFrame(settings)]));
    this.#peer.serve(socket);
  }

  #take(received: Frame): void {
    const { type, flags, streamId, payload } = received;
    if (type === frameType.settings) {
      if ((flags & flag.ack) === 0) this.#give(settingsAck);
    } else if (type === frameType.windowUpdate && streamId === 0) {
      this.#credit(payload.readUInt32BE());
    } else if (type === frameType.goAway) {
      const code = payload.readUInt32BE(4);
      if (code !== errorCode.noError) this.#peer.fail(code, payload.toString("utf8", 8));
    } else if (type === frameType.headers || type === frameType.continuation) {
      this.#takeHeaders(received);
    } else if (this.#streams.has(streamId)) {
      this.#pass(received);
    }
  }

  #takeHeaders(received: Frame): void {
    this.#unfinished ??= { first: received, blocks: [] };
    this.#unfinished.blocks.push(received.payload);
    if ((received.flags & flag.endHeaders) === 0) return;
    const { first, blocks } = this.#unfinished;
    this.#unfinished = undefined;
    this.#pass({ ...first, payload: Buffer.concat(blocks) });
  }

  /** Gives the peer what is for it, in the order in which it was sent. */
  #pass(received: Frame): void {
    const { type, flags, streamId, payload } = received;
    const ends = this.#streams.get(streamId);
    if (ends === undefined) return;
    if (type === frameType.windowUpdate) {
      this.#peer.write(frame(received));
      return;
    }
    if (this.#waiting.length > 0) {
      this.#waiting.push(received);
      return;
    }
    const endStream = (flags & flag.endStream) !== 0;
    if (type === frameType.headers) {
      this.#peer.writeHeaders(streamId, payload, endStream);
    } else if (type === frameType.data) {
      const length = this.#peer.takeSendWindow(payload.length);
      const isWhole = length === payload.length;
      if (length > 0 || isWhole) this.#writeData(streamId, payload.subarray(0, length), isWhole && endStream);
      if (!isWhole) {
        this.#waiting.push({ ...received, payload: payload.subarray(length) });
        return;
      }
    } else {
      this.#peer.write(frame(received));
    }
    if (type === frameType.reset) this.#forget(streamId, ends.read);
    else if (endStream) this.#end(streamId, ends, "answered");
  }

  #writeData(streamId: number, payload: Buffer, endStream: boolean): void {
    const bytes = Buffer.allocUnsafe(headBytes + payload.length);
    const head = { type: frameType.data, flags: endStream ? flag.endStream : 0, streamId, length: payload.length };
    writeHead(bytes, 0, head);
    payload.copy(bytes, headBytes);
    this.#peer.write(bytes);
    // Node may send as much again.
    if (payload.length > 0) this.#give(windowUpdateFrame(payload.length));
  }

  /** Node has read so much, first of all what its window is smaller. */
  #credit(bytes: number): void {
    const counted = Math.max(0, bytes - this.#uncounted);
    this.#uncounted = Math.max(0, this.#uncounted - bytes);
    if (counted > 0) this.#peer.credit(counted);
  }

  #end(streamId: number, ends: Ends, side: keyof Ends): void {
    ends[side] = true;
    if (ends.read && ends.answered) this.#forget(streamId, true);
  }

  #forget(streamId: number, isRead: boolean): void {
    if (this.#streams.delete(streamId)) this.#peer.noteEnd(streamId, isRead);
  }
}

function* pairs(list: HeaderList): Generator<readonly [name: string, value: string]> {
  for (let at = 0; at < list.length; at += 2) yield [list[at] ?? "", list[at + 1] ?? ""];
}

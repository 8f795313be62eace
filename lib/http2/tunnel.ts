/**
 * Requests that go on to Node's HTTP/2. It is given a connection of its own, on which there are only these, with the numbers that their streams have on the
 * peer's: what is about a stream goes from one to the other as it is, and what is about the connection is between Node and here.
 */
import { Duplex } from "node:stream";
import {
  ConnectionError,
  createFrameReader,
  defaultWindowBytes,
  errorCode,
  type Frame,
  flag,
  frame,
  frameType,
  headerFrames,
  preface,
  setting,
  settingsAck,
  settingsFrame,
  windowUpdateFrame,
} from "./frames.ts";
import { createHeaderJoiner } from "./header-blocks.ts";
import { type HeaderList, headerBlock } from "./hpack.ts";
import type { Sender } from "./sender.ts";

export interface TunnelOptions {
  /** The peer's window of the connection, and of each stream. */
  readonly windowBytes: number;
  /** Serves HTTP/2 over something like a socket. */
  readonly serve: (socket: Duplex) => void;
  /** So many bytes of the peer have been read. */
  readonly onRead: (bytes: number) => void;
  /** A stream has ended, and whether the peer had ended it. */
  readonly onEnd: (streamId: number, isRead: boolean) => void;
  /** The connection has to end. */
  readonly onFailure: (error: ConnectionError) => void;
}

/** Which sides of a stream are closed. */
interface Ends {
  read: boolean;
  answered: boolean;
}

export class Tunnel {
  readonly #sender: Sender;
  readonly #options: TunnelOptions;
  readonly #streams = new Map<number, Ends>();
  #initialWindow = defaultWindowBytes;
  /** What Node reads. It is there when a request is. */
  #socket: Duplex | undefined;
  /** What Node is still to be given, and whether there is a turn for that. */
  #unread: Buffer[] = [];
  #isGiving = false;
  /** What of a stream waits for the connection's window, in its order: first of all a body. */
  readonly #waiting = new Map<number, Frame[]>();
  #isClosed = false;
  /** How much Node's window of the connection is behind the peer's. */
  #uncounted: number;

  /** @param sender Of the peer's connection. */
  constructor(sender: Sender, options: TunnelOptions) {
    this.#sender = sender;
    this.#options = options;
    this.#uncounted = options.windowBytes - defaultWindowBytes;
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
    for (const [streamId, frames] of this.#waiting) {
      if (!this.#sender.hasRoom()) return;
      this.#waiting.delete(streamId);
      for (const received of frames) this.#pass(received);
    }
  }

  close(): void {
    this.#isClosed = true;
    this.#streams.clear();
    this.#waiting.clear();
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
    const joinHeaders = createHeaderJoiner(Number.POSITIVE_INFINITY);
    const read = createFrameReader((received) => {
      const whole = joinHeaders(received);
      if (whole !== undefined) this.#take(whole);
    });
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
      // Node gives up a connection for what its peer did, which may be heard of by nothing else.
      if (this.#isClosed) return;
      this.#options.onFailure(new ConnectionError(errorCode.internalError, "the requests cannot be answered"));
    });
    // What Node sends is not compressed by a table, of which there would have to be one for both.
    const settings = new Map<number, number>([
      [setting.headerTableSize, 0],
      [setting.initialWindowSize, this.#initialWindow],
    ]);
    this.#give(Buffer.concat([preface, settingsFrame(settings)]));
    this.#options.serve(socket);
  }

  #take(received: Frame): void {
    const { type, flags, streamId, payload } = received;
    if (type === frameType.settings) {
      if ((flags & flag.ack) === 0) this.#give(settingsAck);
    } else if (type === frameType.windowUpdate && streamId === 0) {
      this.#credit(payload.readUInt32BE());
    } else if (type === frameType.goAway) {
      const code = payload.readUInt32BE(4);
      if (code !== errorCode.noError) this.#options.onFailure(new ConnectionError(code, payload.toString("utf8", 8)));
    } else {
      this.#pass(received);
    }
  }

  /** Gives the peer what is for it, in the order in which it was sent. */
  #pass(received: Frame): void {
    const { type, flags, streamId, payload } = received;
    const ends = this.#streams.get(streamId);
    if (ends === undefined) {
      this.#giveBack(received);
      return;
    }
    if (type === frameType.windowUpdate) {
      this.#sender.write(frame(received));
      return;
    }
    const waiting = this.#waiting.get(streamId);
    if (waiting !== undefined) {
      waiting.push(received);
      return;
    }
    const endStream = (flags & flag.endStream) !== 0;
    if (type === frameType.headers) {
      this.#sender.writeHeaders(streamId, payload, endStream);
    } else if (type === frameType.data) {
      const length = this.#sender.takeWindow(payload.length);
      const isWhole = length === payload.length;
      if (length > 0 || isWhole) {
        this.#sender.writeData(streamId, payload.subarray(0, length), isWhole && endStream);
        // Node may send as much again.
        if (length > 0) this.#give(windowUpdateFrame(length));
      }
      if (!isWhole) {
        this.#waiting.set(streamId, [{ ...received, payload: payload.subarray(length) }]);
        return;
      }
    } else {
      this.#sender.write(frame(received));
    }
    if (type === frameType.reset) this.#forget(streamId, ends.read);
    else if (endStream) this.#end(streamId, ends, "answered");
  }

  /** What nobody wants any more makes room for what somebody does. */
  #giveBack({ type, payload }: Frame): void {
    if (type === frameType.data && payload.length > 0) this.#give(windowUpdateFrame(payload.length));
  }

  /** Node has taken so much, first of all what its window is smaller. */
  #credit(bytes: number): void {
    const counted = Math.max(0, bytes - this.#uncounted);
    this.#uncounted = Math.max(0, this.#uncounted - bytes);
    if (counted > 0) this.#options.onRead(counted);
  }

  #end(streamId: number, ends: Ends, side: keyof Ends): void {
    ends[side] = true;
    if (ends.read && ends.answered) this.#forget(streamId, true);
  }

  #forget(streamId: number, isRead: boolean): void {
    for (const received of this.#waiting.get(streamId) ?? []) this.#giveBack(received);
    this.#waiting.delete(streamId);
    if (this.#streams.delete(streamId)) this.#options.onEnd(streamId, isRead);
  }
}

function* pairs(list: HeaderList): Generator<readonly [name: string, value: string]> {
  for (let at = 0; at < list.length; at += 2) yield [list[at] ?? "", list[at + 1] ?? ""];
}

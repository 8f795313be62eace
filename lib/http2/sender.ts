/** The writing side of a connection: what is written together, what the peer lets through, and what waits for that. */
import type { Duplex } from "node:stream";
import {
  ConnectionError,
  defaultWindowBytes,
  errorCode,
  flag,
  frameType,
  headBytes,
  headerFrames,
  largest,
  maxFrameBytes,
  writeHead,
} from "./frames.ts";
import { noTable } from "./hpack.ts";
import type { AnswerRest, RequestStream } from "./request-stream.ts";

/** Bytes that wait to be sent above which nothing is read, and of bodies nothing sent: who does not take answers gets to ask no more. */
const maxUnsentBytes = 1024 * 1024;

export interface SenderOptions {
  /** There is room again for what `takeWindow` has not let through. */
  readonly onRoom: () => void;
  /** The answer of a stream has been sent as a whole. */
  readonly onAnswered: (stream: RequestStream) => void;
}

export class Sender {
  readonly #socket: Duplex;
  readonly #options: SenderOptions;
  /** Bytes that the peer lets us send. */
  #window = defaultWindowBytes;
  /** Streams whose answers wait for that. */
  readonly #blocked = new Set<RequestStream>();
  #unwritten: Buffer[] = [];
  #unwrittenBytes = 0;
  #isFlushing = false;
  /** The peer does not take what is sent: nothing is read until it does. */
  #isBackedUp = false;
  /** Somebody wanted more than there was room for. */
  #isShort = false;
  #isGoingOn = false;
  #isTunnelFirst = false;
  #sentHeaders = false;
  #hasAnswered = false;

  constructor(socket: Duplex, options: SenderOptions) {
    this.#socket = socket;
    this.#options = options;
  }

  /** What is written while one thing is done goes out together. */
  write(bytes: Buffer): void {
    this.#unwritten.push(bytes);
    this.#unwrittenBytes += bytes.length;
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    process.nextTick(() => this.#flush());
  }

  writeHeaders(streamId: number, block: Buffer, endStream: boolean): void {
    this.write(headerFrames(streamId, this.#sentHeaders ? block : Buffer.concat([noTable, block]), endStream));
    this.#sentHeaders = true;
    this.#hasAnswered = true;
  }

  /** Whether any headers or bodies were sent since it was asked for the last time. */
  hasAnswered(): boolean {
    const answered = this.#hasAnswered;
    this.#hasAnswered = false;
    return answered;
  }

  writeData(streamId: number, data: Buffer, endStream: boolean): void {
    const bytes = Buffer.allocUnsafe(headBytes + data.length);
    const { length } = data;
    writeHead(bytes, 0, { type: frameType.data, flags: endStream ? flag.endStream : 0, streamId, length });
    data.copy(bytes, headBytes);
    this.#hasAnswered = true;
    this.write(bytes);
  }

  /** As much of the connection's window as is wanted, or what there is of it: then there will be more at `onRoom`. */
  takeWindow(wanted: number): number {
    const bytes = this.hasRoom() ? Math.min(wanted, this.#window) : 0;
    this.#window -= bytes;
    if (bytes < wanted) this.#isShort = true;
    return bytes;
  }

  /** Whether anything of a body may be sent. If not, `onRoom` tells when. */
  hasRoom(): boolean {
    const hasRoom = this.#window > 0 && this.#unwrittenBytes + this.#socket.writableLength <= maxUnsentBytes;
    if (!hasRoom) this.#isShort = true;
    return hasRoom;
  }

  /** The peer lets more through. Throws a ConnectionError if that is too much. */
  widen(bytes: number): void {
    this.#window += bytes;
    if (this.#window > largest) {
      throw new ConnectionError(errorCode.flowControlError, "the connection's window is too large");
    }
    this.#goOnSoon();
  }

  /** Sends an answer, as far as there is room for it. */
  answer(stream: RequestStream, headers: Buffer, rest: AnswerRest): void {
    stream.unsent = { ...rest, at: 0 };
    this.writeHeaders(stream.id, headers, false);
    this.sendOn(stream);
  }

  /** Sends what there is room for of what is left of an answer, if one was begun. */
  sendOn(stream: RequestStream): void {
    const { unsent } = stream;
    if (unsent === undefined) return;
    const { body, trailers } = unsent;
    while (unsent.at < body.length) {
      const wanted = Math.min(body.length - unsent.at, maxFrameBytes, stream.sendWindow);
      // It goes on when the peer says so.
      if (wanted <= 0) return;
      const length = this.takeWindow(wanted);
      if (length === 0) {
        this.#blocked.add(stream);
        return;
      }
      this.writeData(stream.id, body.subarray(unsent.at, unsent.at + length), false);
      stream.sendWindow -= length;
      unsent.at += length;
    }
    this.writeHeaders(stream.id, trailers, true);
    this.#options.onAnswered(stream);
  }

  /** Nothing more is sent of a stream. */
  drop(stream: RequestStream): void {
    this.#blocked.delete(stream);
  }

  /** Ends the socket when all is out that was written. */
  end(): void {
    this.#flush();
    this.#socket.end();
  }

  /** Once, however often the peer makes room meanwhile. */
  #goOnSoon(): void {
    if (!this.#isShort || this.#isGoingOn) return;
    this.#isGoingOn = true;
    process.nextTick(() => {
      this.#isGoingOn = false;
      this.#isShort = false;
      // By turns, so that neither takes all there ever is.
      this.#isTunnelFirst = !this.#isTunnelFirst;
      if (this.#isTunnelFirst) this.#options.onRoom();
      for (const stream of this.#blocked) {
        if (!this.hasRoom()) break;
        this.#blocked.delete(stream);
        this.sendOn(stream);
      }
      if (!this.#isTunnelFirst) this.#options.onRoom();
    });
  }

  #flush(): void {
    this.#isFlushing = false;
    const unwritten = this.#unwritten;
    const [first] = unwritten;
    this.#unwritten = [];
    this.#unwrittenBytes = 0;
    if (first === undefined || this.#socket.destroyed || this.#socket.writableEnded) return;
    this.#socket.write(unwritten.length === 1 ? first : Buffer.concat(unwritten));
    if (this.#isBackedUp) return;
    if (this.#socket.writableLength <= maxUnsentBytes) {
      if (this.#window > 0) this.#goOnSoon();
      return;
    }
    this.#isBackedUp = true;
    this.#socket.pause();
    this.#socket.once("drain", () => {
      this.#isBackedUp = false;
      this.#socket.resume();
      this.#goOnSoon();
    });
  }
}

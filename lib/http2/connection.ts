/**
 * The server's side of an HTTP/2 connection (RFC 9113). Node's own makes an object of C++ and one of JavaScript for each request, and strings that only a
 * collection of the whole heap frees, which together take more time than a small network does for an image. Here a request that somebody takes is
 * a few fields, and its answer is one write. Only what is asked and answered in one piece is served like that: every other request goes on to
 * Node's HTTP/2 through a {@link Tunnel}, frame by frame.
 */
import type { IncomingHttpHeaders } from "node:http2";
import type { Duplex } from "node:stream";
import { type Allowance, type AllowanceOptions, createAllowance } from "./allowance.ts";
import { checkFrame } from "./frame-rules.ts";
import {
  ConnectionError,
  createFrameReader,
  defaultWindowBytes,
  errorCode,
  type Frame,
  flag,
  frame,
  frameType,
  goAwayFrame,
  largest,
  maxFrameBytes,
  preface,
  readSettings,
  resetFrame,
  setting,
  settingsAck,
  settingsFrame,
  unpadded,
  windowUpdateFrame,
} from "./frames.ts";
import { createHeaderJoiner } from "./header-blocks.ts";
import { plainHeaders } from "./headers.ts";
import { HeaderDecoder, type HeaderList } from "./hpack.ts";
import { type AnswerRest, RequestStream, type StreamOwner } from "./request-stream.ts";
import { Sender } from "./sender.ts";
import { Tunnel } from "./tunnel.ts";

export interface ConnectionLimits {
  /** Requests under way at a time; above it they are refused. */
  readonly maxConcurrentStreams: number;
  /** Bytes that a peer may send ahead, on a stream and on the connection; 65,535 or more. */
  readonly windowBytes: number;
  /**
   * How much a peer may ask for that costs it nothing, and us something: cancelled requests, settings, pings for nothing. Default: 4,000 frames at once,
   * and 2,000 a second, as busy clients cancel a thousand calls a second.
   */
  readonly cheapFrames?: Pick<AllowanceOptions, "atOnce" | "perSecond">;
}

export interface ConnectionHandlers {
  /** Takes a request, whose `receiver` it then sets before it returns; false leaves it to Node's HTTP/2. */
  readonly take: (stream: RequestStream, headers: IncomingHttpHeaders) => boolean;
  /** Serves HTTP/2 over something like a socket. */
  readonly serve: (socket: Duplex) => void;
}

/** Headers of a message, with 32 bytes for each: as many as Node takes. */
const maxHeaderListBytes = 65_535;
/** How long a peer may take to close a connection when it has been sent all, or has broken the rules. */
const lingerMs = 1_000;
/** Streams that were given up of which is remembered that more may come for them. */
const maxGivenUp = 4_096;
const defaultCheapFrames = { atOnce: 4_000, perSecond: 2_000 };

export class ServerConnection implements StreamOwner {
  readonly #socket: Duplex;
  readonly #handlers: ConnectionHandlers;
  readonly #limits: ConnectionLimits;
  readonly #joinHeaders = createHeaderJoiner(maxHeaderListBytes);
  readonly #decoder = new HeaderDecoder(maxHeaderListBytes);
  readonly #allowance: Allowance;
  readonly #streams = new Map<number, RequestStream>();
  readonly #sender: Sender;
  readonly #tunnel: Tunnel;
  /** Streams that ended here before their peer had ended them, the latest of them. */
  readonly #givenUp = new Set<number>();
  #lastStreamId = 0;
  #greeted = false;
  #hasSettings = false;
  #initialWindow = defaultWindowBytes;
  #receiveWindow: number;
  /** Bytes that were read, and of which the peer has not been told. */
  #uncredited = 0;
  /** No new requests are taken; when none is left, the connection ends. */
  #isLeaving = false;
  #hasEnded = false;

  /** @param socket From the client's preface on. It is read, written and closed here. */
  constructor(socket: Duplex, handlers: ConnectionHandlers, limits: ConnectionLimits) {
    this.#socket = socket;
    this.#handlers = handlers;
    this.#limits = limits;
    this.#allowance = createAllowance(limits.cheapFrames ?? defaultCheapFrames);
    this.#receiveWindow = limits.windowBytes;
    this.#sender = new Sender(socket, {
      onRoom: () => this.#tunnel.sendOn(),
      onAnswered: (stream) => this.#finish(stream),
    });
    this.#tunnel = new Tunnel(this.#sender, {
      windowBytes: limits.windowBytes,
      serve: handlers.serve,
      onRead: (bytes) => this.#credit(bytes, 0),
      onEnd: (streamId, isRead) => {
        if (!isRead) this.#giveUp(streamId);
        this.#endIfIdle();
      },
      onFailure: (error) => this.#fail(error),
    });
    const read = createFrameReader((received) => this.#take(received));
    socket.on("data", (chunk: Buffer) => {
      if (this.#hasEnded) return;
      try {
        read(this.#greeted ? chunk : this.#withoutPreface(chunk));
      } catch (thrown) {
        if (!(thrown instanceof ConnectionError)) throw thrown;
        this.#fail(thrown);
      }
    });
    // Whatever broke it, it closes, and that is heard.
    socket.on("error", () => undefined);
    socket.on("close", () => this.#lose());
    const settings = new Map<number, number>([
      [setting.maxConcurrentStreams, limits.maxConcurrentStreams],
      [setting.initialWindowSize, limits.windowBytes],
      [setting.maxHeaderListSize, maxHeaderListBytes],
    ]);
    this.#sender.write(settingsFrame(settings));
    const wider = limits.windowBytes - defaultWindowBytes;
    if (wider > 0) this.#sender.write(windowUpdateFrame(wider));
  }

  /** Asks the peer to make its next requests elsewhere; those that come all the same are served. */
  askToLeave(): void {
    if (!this.#hasEnded) this.#sender.write(goAwayFrame(largest, errorCode.noError));
  }

  /** Takes no more requests, and ends when those under way are answered. */
  close(): void {
    if (this.#isLeaving || this.#hasEnded) return;
    this.#isLeaving = true;
    this.#sender.write(goAwayFrame(this.#lastStreamId, errorCode.noError));
    this.#endIfIdle();
  }

  isOpen(stream: RequestStream): boolean {
    return this.#streams.get(stream.id) === stream && stream.unsent === undefined;
  }

  answer(stream: RequestStream, headers: Buffer, rest?: AnswerRest): void {
    if (!this.isOpen(stream)) return;
    if (rest !== undefined) {
      this.#sender.answer(stream, headers, rest);
      return;
    }
    this.#sender.writeHeaders(stream.id, headers, true);
    this.#finish(stream);
  }

  reset(streamId: number, code: number): void {
    this.#sender.write(resetFrame(streamId, code));
    this.#giveUp(streamId);
    const stream = this.#streams.get(streamId);
    if (stream !== undefined) this.#remove(stream);
  }

  #withoutPreface(chunk: Buffer): Buffer {
    // Whoever has found out that this is HTTP/2 has put back what it read, which had all of it.
    if (!chunk.subarray(0, preface.length).equals(preface)) {
      throw new ConnectionError(errorCode.protocolError, "the connection does not begin as one of HTTP/2 does");
    }
    this.#greeted = true;
    return chunk.subarray(preface.length);
  }

  #take(received: Frame): void {
    checkFrame(received);
    if (!this.#hasSettings && received.type !== frameType.settings) throw protocolError("SETTINGS comes first");
    const whole = this.#joinHeaders(received);
    if (whole === undefined) return;
    const take = this.#takers[whole.type];
    // Nothing is made of priorities (section 5.3.2), nor of extensions that are not known.
    if (take === undefined) this.#allowance.spend();
    else take(whole);
  }

  readonly #takers: Readonly<Record<number, (received: Frame) => void>> = {
    [frameType.data]: (received) => this.#takeData(received),
    [frameType.headers]: (received) => this.#takeHeaders(received),
    [frameType.reset]: (received) => this.#takeReset(received),
    [frameType.settings]: (received) => this.#takeSettings(received),
    [frameType.pushPromise]: () => {
      throw protocolError("clients do not push");
    },
    [frameType.ping]: (received) => this.#takePing(received),
    // A peer that leaves makes no requests; what it has made it may still hear of.
    [frameType.goAway]: () => this.close(),
    [frameType.windowUpdate]: (received) => this.#takeWindowUpdate(received),
  };

  #takeHeaders({ streamId, flags, payload }: Frame): void {
    const list = this.#decoder.decode(payload);
    const endStream = (flags & flag.endStream) !== 0;
    const stream = this.#streams.get(streamId);
    if (stream !== undefined) this.#takeTrailers(stream, endStream);
    else if (this.#tunnel.has(streamId)) this.#tunnel.sendHeaders(streamId, list, endStream);
    else if (streamId % 2 === 0) throw protocolError(`a client has no stream ${streamId}`);
    else if (streamId <= this.#lastStreamId) {
      this.#allowance.spend();
      this.#takeLate(streamId);
    } else this.#takeRequest(streamId, list, endStream);
  }

  #takeRequest(streamId: number, list: HeaderList, endStream: boolean): void {
    // The peer was told which stream is the last, and sends it again elsewhere.
    if (this.#isLeaving) return;
    this.#lastStreamId = streamId;
    if (this.#streams.size + this.#tunnel.size >= this.#limits.maxConcurrentStreams) {
      this.#allowance.spend();
      this.reset(streamId, errorCode.refusedStream);
      return;
    }
    const headers = plainHeaders(list);
    const stream = new RequestStream(this, streamId, { sendWindow: this.#initialWindow, isRead: endStream });
    this.#streams.set(streamId, stream);
    if (headers === undefined || !this.#handlers.take(stream, headers)) {
      this.#streams.delete(streamId);
      this.#tunnel.sendHeaders(streamId, list, endStream);
    } else if (endStream) {
      stream.receiver?.end();
    }
  }

  /** Nothing that is served here has a use for them. */
  #takeTrailers(stream: RequestStream, endStream: boolean): void {
    if (stream.isRead) this.#refuse(stream, errorCode.streamClosed);
    else if (!endStream) this.#refuse(stream, errorCode.protocolError);
    else {
      stream.isRead = true;
      stream.receiver?.end();
    }
  }

  #takeData(received: Frame): void {
    const { streamId, flags, payload } = received;
    // The whole payload counts, padding as well.
    const bytes = payload.length;
    this.#receiveWindow -= bytes;
    if (this.#receiveWindow < 0) throw flowControlError("more was sent than the connection's window lets through");
    const endStream = (flags & flag.endStream) !== 0;
    if (bytes === 0 && !endStream) this.#allowance.spend();
    if (this.#tunnel.has(streamId)) {
      this.#tunnel.send(received);
      return;
    }
    this.#credit(bytes);
    const stream = this.#streams.get(streamId);
    if (stream === undefined) {
      this.#checkNotIdle(streamId);
      this.#takeLate(streamId);
      return;
    }
    if (stream.isRead) {
      this.#refuse(stream, errorCode.streamClosed);
      return;
    }
    const data = unpadded(received);
    const { receiver } = stream;
    if (data.length > 0) receiver?.data(data);
    stream.uncredited += bytes;
    if (endStream) {
      stream.isRead = true;
      receiver?.end();
    } else if (stream.uncredited >= this.#limits.windowBytes / 2 && this.#streams.has(streamId)) {
      this.#sender.write(windowUpdateFrame(stream.uncredited, streamId));
      stream.uncredited = 0;
    }
  }

  /** What comes for a stream that is over: its peer may not know yet, or should know better. */
  #takeLate(streamId: number): void {
    if (this.#isLeaving || this.#givenUp.has(streamId)) return;
    throw new ConnectionError(errorCode.streamClosed, `stream ${streamId} is closed`);
  }

  #giveUp(streamId: number): void {
    this.#givenUp.add(streamId);
    if (this.#givenUp.size <= maxGivenUp) return;
    for (const oldest of this.#givenUp) {
      this.#givenUp.delete(oldest);
      return;
    }
  }

  #takeReset(received: Frame): void {
    const { streamId } = received;
    this.#checkNotIdle(streamId);
    const stream = this.#streams.get(streamId);
    if (stream === undefined && !this.#tunnel.has(streamId)) return;
    this.#allowance.spend();
    if (stream !== undefined) this.#abort(stream);
    else this.#tunnel.send(received);
  }

  #takeWindowUpdate(received: Frame): void {
    const { streamId, payload } = received;
    const bytes = payload.readUInt32BE() & largest;
    if (streamId === 0) {
      if (bytes === 0) throw protocolError("a window grows by nothing");
      this.#sender.widen(bytes);
      return;
    }
    if (this.#tunnel.has(streamId)) {
      this.#tunnel.send(received);
      return;
    }
    this.#checkNotIdle(streamId);
    const stream = this.#streams.get(streamId);
    if (stream === undefined) return;
    if (bytes === 0) this.#refuse(stream, errorCode.protocolError);
    else this.#widen(stream, bytes);
  }

  #widen(stream: RequestStream, bytes: number): void {
    stream.sendWindow += bytes;
    if (stream.sendWindow > largest) this.#refuse(stream, errorCode.flowControlError);
    else this.#sender.sendOn(stream);
  }

  #takeSettings({ flags, payload }: Frame): void {
    if ((flags & flag.ack) !== 0) return;
    this.#allowance.spend();
    this.#hasSettings = true;
    const settings = readSettings(payload);
    const initialWindow = settings.get(setting.initialWindowSize) ?? this.#initialWindow;
    if (initialWindow > largest) throw flowControlError("the initial window is too large");
    if ((settings.get(setting.enablePush) ?? 0) > 1) throw protocolError("ENABLE_PUSH is 0 or 1");
    const frameBytes = settings.get(setting.maxFrameSize) ?? maxFrameBytes;
    if (frameBytes < maxFrameBytes || frameBytes > 2 ** 24 - 1) throw protocolError(`MAX_FRAME_SIZE is ${frameBytes}`);
    this.#sender.write(settingsAck);
    const wider = initialWindow - this.#initialWindow;
    this.#initialWindow = initialWindow;
    if (wider === 0) return;
    this.#tunnel.setInitialWindow(initialWindow);
    for (const stream of [...this.#streams.values()]) this.#widen(stream, wider);
  }

  #takePing(received: Frame): void {
    if ((received.flags & flag.ack) !== 0) return;
    // Clients in Go measure the way there and back by a ping for each body that they get.
    if (!this.#sender.hasAnswered()) this.#allowance.spend();
    this.#sender.write(frame({ ...received, flags: flag.ack }));
  }

  #checkNotIdle(streamId: number): void {
    const isKnown = streamId <= this.#lastStreamId && streamId % 2 === 1;
    // What comes after a peer was told to leave was not looked at, so that its streams are not known.
    if (!isKnown && !this.#isLeaving) throw protocolError(`stream ${streamId} was not begun`);
  }

  /** So much has been read: the peer may send as much again. It is told when that is worth a frame, by default for half of the window. */
  #credit(bytes: number, worthBytes = this.#limits.windowBytes / 2): void {
    this.#uncredited += bytes;
    if (this.#uncredited < worthBytes) return;
    this.#sender.write(windowUpdateFrame(this.#uncredited));
    this.#receiveWindow += this.#uncredited;
    this.#uncredited = 0;
  }

  /** A stream was answered. */
  #finish(stream: RequestStream): void {
    // The peer may still be sending a request that nobody will read.
    if (stream.isRead) this.#remove(stream);
    else this.reset(stream.id, errorCode.noError);
  }

  /** The peer has broken the rules on a stream of its own. */
  #refuse(stream: RequestStream, code: number): void {
    this.#allowance.spend();
    this.reset(stream.id, code);
    stream.receiver?.abort();
  }

  #abort(stream: RequestStream): void {
    this.#remove(stream);
    stream.receiver?.abort();
  }

  #remove(stream: RequestStream): void {
    this.#streams.delete(stream.id);
    this.#sender.drop(stream);
    this.#endIfIdle();
  }

  #endIfIdle(): void {
    if (this.#isLeaving && this.#streams.size + this.#tunnel.size === 0) this.#end();
  }

  #fail({ code, message }: ConnectionError): void {
    if (this.#hasEnded) return;
    this.#sender.write(goAwayFrame(this.#lastStreamId, code, message));
    this.#end();
    this.#lose();
    this.#cutSoon();
  }

  #end(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    // Not sooner: answers may be on their way for long.
    this.#socket.once("finish", () => this.#cutSoon());
    this.#sender.end();
  }

  /** What the peer still sends is read meanwhile, or it would not get to see why it shall go. */
  #cutSoon(): void {
    const timer = setTimeout(() => this.#socket.destroy(), lingerMs);
    this.#socket.once("close", () => clearTimeout(timer));
  }

  /** Nobody is there to answer any more. */
  #lose(): void {
    this.#hasEnded = true;
    for (const stream of [...this.#streams.values()]) this.#abort(stream);
    this.#tunnel.close();
  }
}

function protocolError(text: string): ConnectionError {
  return new ConnectionError(errorCode.protocolError, text);
}

function flowControlError(text: string): ConnectionError {
  return new ConnectionError(errorCode.flowControlError, text);
}

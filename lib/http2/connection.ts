/**
 * The server's side of an HTTP/2 connection (RFC 9113). Node's own makes an object of C++ and one of JavaScript for each request, and strings that only a
 * collection of the whole heap frees, which together take more time than a small network does for an image. Here a request that somebody takes is
 * a few fields, and its answer is one write. Only what is asked and answered in one piece is served like that: every other request goes on to
 * Node's HTTP/2 through a {@link Tunnel}, frame by frame.
 */
import type { IncomingHttpHeaders } from "node:http2";
import type { Duplex } from "node:stream";
import { createAllowance } from "./allowance.ts";
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
  headBytes,
  headerFrames,
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
  writeHead,
} from "./frames.ts";
import { plainHeaders } from "./headers.ts";
import { HeaderDecoder, type HeaderList, noTable } from "./hpack.ts";
import { Tunnel } from "./tunnel.ts";

export interface ConnectionLimits {
  /** Requests under way at a time; above it they are refused. */
  readonly maxConcurrentStreams: number;
  /** Bytes that a peer may send ahead, on a stream and on the connection; 65,535 or more. */
  readonly windowBytes: number;
}

export interface ConnectionHandlers {
  /** Takes a request, whose `receiver` it then sets before it returns; false leaves it to Node's HTTP/2. */
  readonly take: (stream: RequestStream, headers: IncomingHttpHeaders) => boolean;
  /** Serves HTTP/2 over something like a socket. */
  readonly serve: (socket: Duplex) => void;
}

/** Told what comes of a request. */
export interface Receiver {
  data(chunk: Buffer): void;
  /** All of it is there. */
  end(): void;
  /** The peer no longer wants an answer, or is gone. Nothing else is told after it. */
  abort(): void;
}

/** Headers of a message, with 32 bytes for each: as many as Node takes. */
const maxHeaderListBytes = 65_535;
/** Bytes that wait to be sent above which nothing is read: who does not take answers gets to ask no more. */
const maxUnsentBytes = 1024 * 1024;
/** How long a peer may take to close a connection that has ended. */
const lingerMs = 1_000;
/** Streams that were given up of which is remembered that more may come for them. */
const maxGivenUp = 4_096;
/** What costs a peer nothing, and us something: so many at once, and so many a second. Busy clients cancel a thousand calls a second. */
const cheapFrames = { atOnce: 4_000, perSecond: 2_000 };

/** A request that was taken, and its answer. */
export class RequestStream {
  readonly id: number;
  receiver: Receiver | undefined;
  /** Bytes that the peer may send, and that it lets us send. */
  receiveWindow: number;
  sendWindow: number;
  /** Whether all of the request has come. */
  isRead = false;
  /** What of the answer is still to be sent, when there is room for it. */
  unsent: { readonly body: Buffer; readonly trailers: Buffer; at: number } | undefined;
  readonly #connection: ServerConnection;

  constructor(connection: ServerConnection, id: number, windows: { readonly receive: number; readonly send: number }) {
    this.#connection = connection;
    this.id = id;
    this.receiveWindow = windows.receive;
    this.sendWindow = windows.send;
  }

  /** Whether there is anybody to answer. */
  get isOpen(): boolean {
    return this.#connection.isOpen(this);
  }

  /** Sends an answer. @param headers A block of headers, like `trailers`: see headerBlock. */
  answer(headers: Buffer, body: Buffer, trailers: Buffer): void {
    this.#connection.answer(this, headers, { body, trailers });
  }

  /** Sends an answer that has headers only. */
  answerShortly(headers: Buffer): void {
    this.#connection.answer(this, headers);
  }

  /** Gives up: the peer gets no answer. */
  fail(): void {
    this.#connection.reset(this.id, errorCode.internalError);
  }
}

/** Headers of which not all frames have come. */
interface Unfinished {
  readonly first: Frame;
  readonly blocks: Buffer[];
  bytes: number;
}

export class ServerConnection {
  readonly #socket: Duplex;
  readonly #handlers: ConnectionHandlers;
  readonly #limits: ConnectionLimits;
  readonly #decoder = new HeaderDecoder(maxHeaderListBytes);
  readonly #allowance = createAllowance(cheapFrames);
  readonly #streams = new Map<number, RequestStream>();
  /** Streams whose answers wait for the window of the connection. */
  readonly #blocked = new Set<RequestStream>();
  readonly #tunnel: Tunnel;
  /** Streams that ended here before their peer had ended them, the latest of them. */
  readonly #givenUp = new Set<number>();
  #lastStreamId = 0;
  #unfinished: Unfinished | undefined;
  #greeted = false;
  #hasSettings = false;
  #sendWindow = defaultWindowBytes;
  #initialWindow = defaultWindowBytes;
  #receiveWindow: number;
  /** Bytes that were read, and of which the peer has not been told. */
  #uncredited = 0;
  #unsent: Buffer[] = [];
  #isFlushing = false;
  /** The peer does not take what is sent: until it does, nothing is read, and of long answers nothing sent. */
  #isBackedUp = false;
  #sentHeaders = false;
  /** No new requests are taken; when none is left, the connection ends. */
  #isLeaving = false;
  #hasEnded = false;

  /** @param socket From the client's preface on. It is read, written and closed here. */
  constructor(socket: Duplex, handlers: ConnectionHandlers, limits: ConnectionLimits) {
    this.#socket = socket;
    this.#handlers = handlers;
    this.#limits = limits;
    this.#receiveWindow = limits.windowBytes;
    this.#tunnel = new Tunnel(
      {
        serve: handlers.serve,
        writeHeaders: (streamId, block, endStream) => this.#writeHeaders(streamId, block, endStream),
        write: (bytes) => this.#write(bytes),
        takeSendWindow: (bytes) => this.#takeSendWindow(bytes),
        credit: (bytes) => this.#credit(bytes, 0),
        fail: (code, text) => this.#fail(new ConnectionError(code, text)),
        noteEnd: (streamId, isRead) => {
          if (!isRead) this.#giveUp(streamId);
          this.#endIfIdle();
        },
      },
      limits.windowBytes,
    );
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
    this.#write(
      Buffer.concat([
        settingsFrame(
          new Map<number, number>([
            [setting.maxConcurrentStreams, limits.maxConcurrentStreams],
            [setting.initialWindowSize, limits.windowBytes],
            [setting.maxHeaderListSize, maxHeaderListBytes],
          ]),
        ),
        windowUpdateFrame(limits.windowBytes - defaultWindowBytes),
      ]),
    );
  }

  /** Asks the peer to make its next requests elsewhere; those that come all the same are served. */
  askToLeave(): void {
    if (!this.#hasEnded) this.#write(goAwayFrame(largest, errorCode.noError));
  }

  /** Takes no more requests, and ends when those under way are answered. */
  close(): void {
    if (this.#isLeaving || this.#hasEnded) return;
    this.#isLeaving = true;
    this.#write(goAwayFrame(this.#lastStreamId, errorCode.noError));
    this.#endIfIdle();
  }

  isOpen(stream: RequestStream): boolean {
    return this.#streams.get(stream.id) === stream && stream.unsent === undefined;
  }

  answer(stream: RequestStream, headers: Buffer, rest?: { readonly body: Buffer; readonly trailers: Buffer }): void {
    if (!this.isOpen(stream)) return;
    if (rest === undefined) {
      this.#writeHeaders(stream.id, headers, true);
      this.#forget(stream);
      return;
    }
    stream.unsent = { ...rest, at: 0 };
    this.#writeHeaders(stream.id, headers, false);
    this.#sendBody(stream);
  }

  reset(streamId: number, code: number): void {
    this.#write(resetFrame(streamId, code));
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
    const { type, streamId } = received;
    if (!this.#hasSettings && type !== frameType.settings) throw protocolError("SETTINGS comes first");
    if (
      this.#unfinished !== undefined &&
      (type !== frameType.continuation || streamId !== this.#unfinished.first.streamId)
    ) {
      throw protocolError("other frames are between those of a message's headers");
    }
    const take = this.#takers[type];
    // Extensions that are not known are left out.
    if (take === undefined) this.#allowance.spend();
    else take(received);
  }

  readonly #takers: Readonly<Record<number, (received: Frame) => void>> = {
    [frameType.data]: (received) => this.#takeData(received),
    [frameType.headers]: (received) => this.#takeHeaders(received),
    [frameType.priority]: (received) => this.#takePriority(received),
    [frameType.reset]: (received) => this.#takeReset(received),
    [frameType.settings]: (received) => this.#takeSettings(received),
    [frameType.pushPromise]: () => {
      throw protocolError("clients do not push");
    },
    [frameType.ping]: (received) => this.#takePing(received),
    [frameType.goAway]: (received) => this.#takeGoAway(received),
    [frameType.windowUpdate]: (received) => this.#takeWindowUpdate(received),
    [frameType.continuation]: (received) => this.#takeContinuation(received),
  };

  #takeHeaders(received: Frame): void {
    const { flags, streamId } = received;
    if (streamId === 0) throw protocolError("HEADERS is of a stream");
    const block = unpadded(received);
    if ((flags & flag.endHeaders) !== 0) {
      this.#takeBlock(received, block);
    } else {
      this.#unfinished = { first: received, blocks: [block], bytes: block.length };
    }
  }

  #takeContinuation({ flags, payload }: Frame): void {
    const unfinished = this.#unfinished;
    if (unfinished === undefined) throw protocolError("CONTINUATION continues nothing");
    unfinished.blocks.push(payload);
    unfinished.bytes += payload.length;
    if (unfinished.bytes > maxHeaderListBytes || payload.length === 0) {
      throw new ConnectionError(errorCode.enhanceYourCalm, `headers take at most ${maxHeaderListBytes} bytes`);
    }
    if ((flags & flag.endHeaders) === 0) return;
    this.#unfinished = undefined;
    this.#takeBlock(unfinished.first, Buffer.concat(unfinished.blocks));
  }

  #takeBlock({ streamId, flags }: Frame, block: Buffer): void {
    const list = this.#decoder.decode(block);
    const endStream = (flags & flag.endStream) !== 0;
    const stream = this.#streams.get(streamId);
    if (stream !== undefined) this.#takeTrailers(stream, endStream);
    else if (this.#tunnel.has(streamId)) this.#tunnel.sendHeaders(streamId, list, endStream);
    else if (streamId % 2 === 0) throw protocolError(`a client has no stream ${streamId}`);
    else if (streamId <= this.#lastStreamId) this.#takeLate(streamId);
    else this.#takeRequest(streamId, list, endStream);
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
    const windows = { receive: this.#limits.windowBytes, send: this.#initialWindow };
    const stream = new RequestStream(this, streamId, windows);
    stream.isRead = endStream;
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
    if (streamId === 0) throw protocolError("DATA is of a stream");
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
    stream.receiveWindow -= bytes;
    if (stream.receiveWindow < 0) {
      this.#refuse(stream, errorCode.flowControlError);
      return;
    }
    const { receiver } = stream;
    if (data.length > 0) receiver?.data(data);
    if (endStream) {
      stream.isRead = true;
      receiver?.end();
    } else if (stream.receiveWindow < this.#limits.windowBytes / 2 && this.#streams.has(streamId)) {
      this.#write(windowUpdateFrame(this.#limits.windowBytes - stream.receiveWindow, streamId));
      stream.receiveWindow = this.#limits.windowBytes;
    }
  }

  /** What comes for a stream that is over: its peer may not know yet, or should know better. */
  #takeLate(streamId: number): void {
    this.#allowance.spend();
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
    checkLength(received, 4);
    if (streamId === 0) throw protocolError("RST_STREAM is of a stream");
    this.#checkNotIdle(streamId);
    const stream = this.#streams.get(streamId);
    if (stream === undefined && !this.#tunnel.has(streamId)) return;
    this.#allowance.spend();
    if (stream !== undefined) this.#abort(stream);
    else this.#tunnel.send(received);
  }

  #takeWindowUpdate(received: Frame): void {
    const { streamId, payload } = received;
    checkLength(received, 4);
    const bytes = payload.readUInt32BE() & largest;
    if (streamId === 0) {
      if (bytes === 0) throw protocolError("a window grows by nothing");
      this.#sendWindow += bytes;
      if (this.#sendWindow > largest) throw flowControlError("the connection's window is too large");
      this.#sendBlocked();
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
    else if (stream.unsent !== undefined) this.#sendBody(stream);
  }

  #takeSettings({ flags, streamId, payload }: Frame): void {
    if (streamId !== 0) throw protocolError("SETTINGS is of the connection");
    const isAck = (flags & flag.ack) !== 0;
    if (isAck ? payload.length > 0 : payload.length % 6 !== 0) {
      throw new ConnectionError(errorCode.frameSizeError, `SETTINGS has ${payload.length} bytes`);
    }
    if (isAck) return;
    this.#allowance.spend();
    this.#hasSettings = true;
    const settings = readSettings(payload);
    const initialWindow = settings.get(setting.initialWindowSize) ?? this.#initialWindow;
    if (initialWindow > largest) throw flowControlError("the initial window is too large");
    if ((settings.get(setting.enablePush) ?? 0) > 1) throw protocolError("ENABLE_PUSH is 0 or 1");
    const frameBytes = settings.get(setting.maxFrameSize) ?? maxFrameBytes;
    if (frameBytes < maxFrameBytes || frameBytes > 2 ** 24 - 1) throw protocolError(`MAX_FRAME_SIZE is ${frameBytes}`);
    this.#write(settingsAck);
    const wider = initialWindow - this.#initialWindow;
    this.#initialWindow = initialWindow;
    if (wider === 0) return;
    this.#tunnel.setInitialWindow(initialWindow);
    for (const stream of [...this.#streams.values()]) this.#widen(stream, wider);
  }

  #takePing(received: Frame): void {
    checkLength(received, 8);
    if (received.streamId !== 0) throw protocolError("PING is of the connection");
    if ((received.flags & flag.ack) !== 0) return;
    this.#allowance.spend();
    this.#write(frame({ ...received, flags: flag.ack }));
  }

  #takeGoAway({ streamId, payload }: Frame): void {
    if (streamId !== 0) throw protocolError("GOAWAY is of the connection");
    if (payload.length < 8) throw new ConnectionError(errorCode.frameSizeError, "GOAWAY is too short");
    // A peer that leaves makes no requests; what it has made it may still hear of.
    this.close();
  }

  /** Nothing is made of priorities (section 5.3.2). */
  #takePriority(received: Frame): void {
    checkLength(received, 5);
    if (received.streamId === 0) throw protocolError("PRIORITY is of a stream");
    this.#allowance.spend();
  }

  #checkNotIdle(streamId: number): void {
    const isKnown = streamId <= this.#lastStreamId && streamId % 2 === 1;
    // What comes after a peer was told to leave was not looked at, so that its streams are not known.
    if (!isKnown && !this.#isLeaving) throw protocolError(`stream ${streamId} was not begun`);
  }

  #sendBody(stream: RequestStream): void {
    const { id, unsent } = stream;
    if (unsent === undefined) return;
    const { body, trailers } = unsent;
    while (unsent.at < body.length) {
      const wanted = Math.min(body.length - unsent.at, maxFrameBytes, stream.sendWindow);
      // It goes on when the peer says so.
      if (wanted <= 0) return;
      const length = this.#takeSendWindow(wanted);
      if (length === 0) {
        this.#blocked.add(stream);
        return;
      }
      const bytes = Buffer.allocUnsafe(headBytes + length);
      writeHead(bytes, 0, { type: frameType.data, flags: 0, streamId: id, length });
      body.copy(bytes, headBytes, unsent.at, unsent.at + length);
      this.#write(bytes);
      stream.sendWindow -= length;
      unsent.at += length;
    }
    this.#writeHeaders(id, trailers, true);
    this.#forget(stream);
  }

  #sendBlocked(): void {
    const waiting = [...this.#blocked];
    this.#blocked.clear();
    for (const stream of waiting) this.#sendBody(stream);
    this.#tunnel.sendOn();
  }

  /** Takes from the connection's window as much as there is of it. What gets less than it wants waits for `#sendBlocked`. */
  #takeSendWindow(wanted: number): number {
    if (this.#isBackedUp) return 0;
    const bytes = Math.min(wanted, Math.max(0, this.#sendWindow));
    this.#sendWindow -= bytes;
    return bytes;
  }

  /** So much has been read: the peer may send as much again. It is told when that is worth a frame, by default for half of the window. */
  #credit(bytes: number, worthBytes = this.#limits.windowBytes / 2): void {
    this.#uncredited += bytes;
    if (this.#uncredited < worthBytes) return;
    this.#write(windowUpdateFrame(this.#uncredited));
    this.#receiveWindow += this.#uncredited;
    this.#uncredited = 0;
  }

  /** A stream was answered. */
  #forget(stream: RequestStream): void {
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
    this.#blocked.delete(stream);
    this.#endIfIdle();
  }

  #writeHeaders(streamId: number, block: Buffer, endStream: boolean): void {
    const whole = this.#sentHeaders ? block : Buffer.concat([noTable, block]);
    this.#sentHeaders = true;
    this.#write(headerFrames(streamId, whole, endStream));
  }

  /** What is written while one thing is done goes out together. */
  #write(bytes: Buffer): void {
    this.#unsent.push(bytes);
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    process.nextTick(() => this.#flush());
  }

  #flush(): void {
    this.#isFlushing = false;
    const [first] = this.#unsent;
    if (first === undefined || this.#socket.destroyed || this.#socket.writableEnded) return;
    this.#socket.write(this.#unsent.length === 1 ? first : Buffer.concat(this.#unsent));
    this.#unsent = [];
    if (this.#socket.writableLength <= maxUnsentBytes || this.#isBackedUp) return;
    this.#isBackedUp = true;
    this.#socket.pause();
    this.#socket.once("drain", () => {
      this.#isBackedUp = false;
      this.#socket.resume();
      this.#sendBlocked();
    });
  }

  #endIfIdle(): void {
    if (this.#isLeaving && this.#streams.size + this.#tunnel.size === 0) this.#end();
  }

  #fail({ code, message }: ConnectionError): void {
    if (this.#hasEnded) return;
    this.#write(goAwayFrame(this.#lastStreamId, code, message));
    this.#end();
    this.#lose();
  }

  #end(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#flush();
    this.#socket.end();
    // What it still sends is read, or it would not get to see why it shall go.
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

function checkLength({ type, payload }: Frame, length: number): void {
  if (payload.length === length) return;
  throw new ConnectionError(errorCode.frameSizeError, `a frame of type ${type} has ${payload.length} bytes`);
}

function protocolError(text: string): ConnectionError {
  return new ConnectionError(errorCode.protocolError, text);
}

function flowControlError(text: string): ConnectionError {
  return new ConnectionError(errorCode.flowControlError, text);
}

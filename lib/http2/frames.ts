/** The frames of HTTP/2 (RFC 9113, sections 4 and 6): their numbers, how they are written, and a reader of what a socket brings. */

export const frameType = {
  data: 0,
  headers: 1,
  priority: 2,
  reset: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goAway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

export const flag = { endStream: 0x1, ack: 0x1, endHeaders: 0x4, padded: 0x8, priority: 0x20 } as const;

export const setting = {
  headerTableSize: 1,
  enablePush: 2,
  maxConcurrentStreams: 3,
  initialWindowSize: 4,
  maxFrameSize: 5,
  maxHeaderListSize: 6,
} as const;

export const errorCode = {
  noError: 0,
  protocolError: 1,
  internalError: 2,
  flowControlError: 3,
  streamClosed: 5,
  frameSizeError: 6,
  refusedStream: 7,
  cancel: 8,
  compressionError: 9,
  enhanceYourCalm: 11,
} as const;

/** What a client sends first (section 3.4). */
export const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");
/** Bytes before the payload of a frame. */
export const headBytes = 9;
/** Payload that every peer takes, and no more is taken unless a peer has said so. */
export const maxFrameBytes = 16_384;
/** The window of a connection, and of a stream, before anybody has said anything else. */
export const defaultWindowBytes = 65_535;
/** The largest window, and the highest number of a stream. */
export const largest = 2 ** 31 - 1;

/** What the peer did for which the connection has to end. */
export class ConnectionError extends Error {
  override readonly name = "ConnectionError";
  readonly code: number;

  /** @param code One of {@link errorCode}. */
  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

export interface Frame {
  readonly type: number;
  readonly flags: number;
  /** 0 is the connection. */
  readonly streamId: number;
  readonly payload: Buffer;
}

/** Writes the head of a frame at `at`. */
export function writeHead(to: Buffer, at: number, head: Omit<Frame, "payload"> & { readonly length: number }): void {
  to.writeUIntBE(head.length, at, 3);
  to[at + 3] = head.type;
  to[at + 4] = head.flags;
  to.writeUInt32BE(head.streamId, at + 5);
}

export function frame({ payload, ...head }: Frame): Buffer {
  const bytes = Buffer.allocUnsafe(headBytes + payload.length);
  writeHead(bytes, 0, { ...head, length: payload.length });
  payload.copy(bytes, headBytes);
  return bytes;
}

/** @param settings By their numbers, see {@link setting}. */
export function settingsFrame(settings: ReadonlyMap<number, number>): Buffer {
  const payload = Buffer.alloc(6 * settings.size);
  for (const [index, [id, value]] of [...settings].entries()) {
    payload.writeUInt16BE(id, 6 * index);
    payload.writeUInt32BE(value, 6 * index + 2);
  }
  return frame({ type: frameType.settings, flags: 0, streamId: 0, payload });
}

export const settingsAck = frame({ type: frameType.settings, flags: flag.ack, streamId: 0, payload: Buffer.alloc(0) });

export function readSettings(payload: Buffer): ReadonlyMap<number, number> {
  const settings = new Map<number, number>();
  for (let at = 0; at + 6 <= payload.length; at += 6) {
    settings.set(payload.readUInt16BE(at), payload.readUInt32BE(at + 2));
  }
  return settings;
}

export function windowUpdateFrame(bytes: number, streamId = 0): Buffer {
  return numberFrame(frameType.windowUpdate, streamId, bytes);
}

/** @param code One of {@link errorCode}. */
export function resetFrame(streamId: number, code: number): Buffer {
  return numberFrame(frameType.reset, streamId, code);
}

function numberFrame(type: number, streamId: number, value: number): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt32BE(value);
  return frame({ type, flags: 0, streamId, payload });
}

/** @param lastStreamId The last stream that was or will be looked at; a client may send others again elsewhere. */
export function goAwayFrame(lastStreamId: number, code: number, text = ""): Buffer {
  const payload = Buffer.alloc(8 + Buffer.byteLength(text));
  payload.writeUInt32BE(lastStreamId);
  payload.writeUInt32BE(code, 4);
  payload.write(text, 8);
  return frame({ type: frameType.goAway, flags: 0, streamId: 0, payload });
}

/** A block of headers as the frames that it takes. */
export function headerFrames(streamId: number, block: Buffer, endStream: boolean): Buffer {
  const first = endStream ? flag.endStream : 0;
  if (block.length <= maxFrameBytes) {
    return frame({ type: frameType.headers, flags: first | flag.endHeaders, streamId, payload: block });
  }
  const frames: Buffer[] = [];
  for (let at = 0; at < block.length; at += maxFrameBytes) {
    const payload = block.subarray(at, at + maxFrameBytes);
    const last = at + maxFrameBytes >= block.length ? flag.endHeaders : 0;
    const type = at === 0 ? frameType.headers : frameType.continuation;
    frames.push(frame({ type, flags: last | (at === 0 ? first : 0), streamId, payload }));
  }
  return Buffer.concat(frames);
}

/**
 * Takes what a socket brings and gives the frames of it, whose payloads are parts of what was taken, padding and all: see {@link unpadded}. Throws a
 * ConnectionError for a frame that is too large, and whatever `take` throws, after which it must not be called again.
 */
export function createFrameReader(take: (frame: Frame) => void): (chunk: Buffer) => void {
  let rest: Buffer | undefined;
  return (chunk) => {
    const bytes = rest === undefined ? chunk : Buffer.concat([rest, chunk]);
    let at = 0;
    while (bytes.length - at >= headBytes) {
      const length = bytes.readUIntBE(at, 3);
      if (length > maxFrameBytes) {
        throw new ConnectionError(
          errorCode.frameSizeError,
          `a frame has ${length} bytes, at most ${maxFrameBytes} are taken`,
        );
      }
      const start = at + headBytes;
      if (start + length > bytes.length) break;
      take({
        type: bytes[at + 3] ?? 0,
        flags: bytes[at + 4] ?? 0,
        streamId: bytes.readUInt32BE(at + 5) & largest,
        payload: bytes.subarray(start, start + length),
      });
      at = start + length;
    }
    rest = at === bytes.length ? undefined : bytes.subarray(at);
  };
}

/** The payload of DATA or HEADERS without padding and priority, of which nothing is made (section 5.3.2). */
export function unpadded({ type, flags, payload }: Frame): Buffer {
  const isPadded = (flags & flag.padded) !== 0;
  const hasPriority = type === frameType.headers && (flags & flag.priority) !== 0;
  if (!isPadded && !hasPriority) return payload;
  const start = (isPadded ? 1 : 0) + (hasPriority ? 5 : 0);
  const end = payload.length - (isPadded ? (payload[0] ?? 0) : 0);
  if (start > payload.length)
    throw new ConnectionError(errorCode.frameSizeError, "a frame is shorter than its flags say");
  if (end < start) throw new ConnectionError(errorCode.protocolError, "a frame has more padding than bytes");
  return payload.subarray(start, end);
}

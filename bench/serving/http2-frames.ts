/**
 * As much of HTTP/2 (RFC 9113) and of its header compression (RFC 7541) as a client needs that sends ready-made headers and looks into answers
 * for their gRPC status alone.
 */

export const frameType = {
  data: 0,
  headers: 1,
  reset: 3,
  settings: 4,
  ping: 6,
  goAway: 7,
  windowUpdate: 8,
  continuation: 9,
};
export const flag = { endStream: 0x1, ack: 0x1, endHeaders: 0x4, padded: 0x8, priority: 0x20 };
export const setting = { headerTableSize: 1, enablePush: 2, maxConcurrentStreams: 3, initialWindowSize: 4 };
export const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
/** Bytes before the payload of a frame. */
export const headBytes = 9;
/** Payload that every peer takes. */
export const maxFrameBytes = 16_384;

export interface Frame {
  readonly type: number;
  readonly flags: number;
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
  const bytes = Buffer.alloc(headBytes + payload.length);
  writeHead(bytes, 0, { ...head, length: payload.length });
  payload.copy(bytes, headBytes);
  return bytes;
}

export function settingsFrame(settings: ReadonlyMap<number, number>): Buffer {
  const payload = Buffer.alloc(6 * settings.size);
  for (const [index, [id, value]] of [...settings].entries()) {
    payload.writeUInt16BE(id, 6 * index);
    payload.writeUInt32BE(value, 6 * index + 2);
  }
  return frame({ type: frameType.settings, flags: 0, streamId: 0, payload });
}

export function readSettings(payload: Buffer): ReadonlyMap<number, number> {
  const settings = new Map<number, number>();
  for (let at = 0; at + 6 <= payload.length; at += 6)
    settings.set(payload.readUInt16BE(at), payload.readUInt32BE(at + 2));
  return settings;
}

export function windowUpdateFrame(bytes: number): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt32BE(bytes);
  return frame({ type: frameType.windowUpdate, flags: 0, streamId: 0, payload });
}

/** Takes what a socket brings and gives the frames of it. Their payloads are parts of what was taken. */
export function createFrameReader(take: (frame: Frame) => void): (chunk: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0);
  return (chunk) => {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let at = 0;
    while (bytes.length - at >= headBytes) {
      const end = at + headBytes + bytes.readUIntBE(at, 3);
      if (end > bytes.length) break;
      const payload = bytes.subarray(at + headBytes, end);
      const [type = 0, flags = 0] = [bytes[at + 3], bytes[at + 4]];
      take({
        type,
        flags,
        streamId: bytes.readUInt32BE(at + 5) & 0x7fff_ffff,
        payload: unpadded({ type, flags, payload }),
      });
      at = end;
    }
    rest = bytes.subarray(at);
  };
}

function unpadded({ type, flags, payload }: Omit<Frame, "streamId">): Buffer {
  if (type !== frameType.data && type !== frameType.headers) return payload;
  const isPadded = (flags & flag.padded) !== 0;
  const hasPriority = type === frameType.headers && (flags & flag.priority) !== 0;
  return payload.subarray(
    (isPadded ? 1 : 0) + (hasPriority ? 5 : 0),
    payload.length - (isPadded ? (payload[0] ?? 0) : 0),
  );
}

/** A block of headers, each in full: not compressed, and remembered by nobody. */
export function headerBlock(headers: Readonly<Record<string, string>>): Buffer {
  const literals = Object.entries(headers).flatMap(([name, value]) => [Buffer.of(0), literal(name), literal(value)]);
  return Buffer.concat(literals);
}

function literal(text: string): Buffer {
  const bytes = Buffer.from(text);
  const length = [];
  let left = bytes.length;
  if (left < 127) length.push(left);
  else {
    length.push(127);
    for (left -= 127; left >= 128; left = Math.floor(left / 128)) length.push((left % 128) | 128);
    length.push(left);
  }
  return Buffer.concat([Buffer.from(length), bytes]);
}

/** Codes of the characters that can be in a gRPC status and its name (RFC 7541, appendix B). */
// biome-ignore format: a table
const huffmanCodes: Readonly<Record<string, string>> = {
  0: "00000", 1: "00001", 2: "00010", 3: "011001", 4: "011010", 5: "011011", 6: "011100", 7: "011101", 8: "011110", 9: "011111",
  "-": "010110", a: "00011", c: "00100", g: "100110", p: "101011", r: "101100", s: "01000", t: "01001", u: "101101",
};

function huffman(text: string): Buffer {
  const bits = [...text].map((character) => huffmanCodes[character] ?? "").join("");
  const padded = bits.padEnd(8 * Math.ceil(bits.length / 8), "1");
  return Buffer.from((padded.match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2)));
}

/** A header's name as it stands in a block, plainly or compressed. */
const statusNames = [Buffer.from("grpc-status"), huffman("grpc-status")];
/** The statuses as they stand behind it, their length before them. */
const statusValues = new Map(
  Array.from({ length: 17 }, (_, status) => String(status)).flatMap((status) => {
    const [plain, compressed] = [Buffer.from(status), huffman(status)];
    return [
      [Buffer.of(plain.length, ...plain).toString("hex"), status],
      [Buffer.of(compressed.length | 0x80, ...compressed).toString("hex"), status],
    ] as const;
  }),
);

/** The gRPC status in a block of headers of a peer that was asked to use no dynamic table; undefined if there is none. */
export function grpcStatus(block: Buffer): string | undefined {
  for (const name of statusNames) {
    const at = block.indexOf(name);
    if (at < 0) continue;
    const start = at + name.length;
    const end = start + 1 + ((block[start] ?? 0) & 0x7f);
    return statusValues.get(block.toString("hex", start, end));
  }
  return undefined;
}

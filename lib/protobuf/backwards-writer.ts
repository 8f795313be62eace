/**
 * Protobuf's wire format, written from the end to the start: when the length of something is due, what it counts is there. So nothing is
 * measured beforehand, and nothing is moved.
 */
export interface BackwardsWriter {
  /** Begins anew. */
  reset(): void;
  /** Bytes written so far. */
  readonly length: number;
  /** A number from 0 to 2^53, in 7 bits a byte. */
  varint(value: number): void;
  /** Of 64 bits; negative ones as two's complement. */
  varint64(value: bigint): void;
  fixed32(value: number): void;
  fixed64(value: bigint): void;
  float(value: number): void;
  double(value: number): void;
  /** UTF-8. */
  text(value: string): void;
  raw(value: Uint8Array): void;
  /** A copy of all that was written, after `room` bytes that are 0. */
  finish(room: number): Buffer;
}

const firstSize = 16 * 1024;
/** A buffer that one large message has needed is not kept for all that follow. */
const maxKeptSize = 1024 * 1024;

export function createBackwardsWriter(): BackwardsWriter {
  let bytes = Buffer.allocUnsafeSlow(firstSize);
  let start = bytes.length;

  /** Makes room for so many bytes before what there is, from `start` on; `bytes` may be another buffer then. */
  function make(count: number): void {
    if (count > start) {
      const written = bytes.length - start;
      const larger = Buffer.allocUnsafeSlow(Math.max(2 * bytes.length, written + count));
      bytes.copy(larger, larger.length - written, start);
      bytes = larger;
      start = larger.length - written;
    }
    start -= count;
  }

  function varint(value: number): void {
    if (value < 0x80) {
      make(1);
      bytes[start] = value;
      return;
    }
    let count = 1;
    for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) count++;
    make(count);
    let at = start;
    let rest = value;
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes[at++] = (rest % 0x80) | 0x80;
    bytes[at] = rest;
  }

  return {
    reset() {
      if (bytes.length > maxKeptSize) bytes = Buffer.allocUnsafeSlow(firstSize);
      start = bytes.length;
    },
    get length() {
      return bytes.length - start;
    },
    varint,
    varint64(value) {
      const unsigned = BigInt.asUintN(64, value);
      if (unsigned <= Number.MAX_SAFE_INTEGER) return varint(Number(unsigned));
      const sevens: number[] = [];
      for (let rest = unsigned; rest > 0n; rest >>= 7n) sevens.push(Number(rest & 0x7fn) | (rest > 0x7fn ? 0x80 : 0));
      make(sevens.length);
      bytes.set(sevens, start);
    },
    fixed32(value) {
      make(4);
      bytes.writeUInt32LE(value >>> 0, start);
    },
    fixed64(value) {
      make(8);
      bytes.writeBigUInt64LE(BigInt.asUintN(64, value), start);
    },
    float(value) {
      make(4);
      bytes.writeFloatLE(value, start);
    },
    double(value) {
      make(8);
      bytes.writeDoubleLE(value, start);
    },
    text(value) {
      make(Buffer.byteLength(value));
      bytes.write(value, start);
    },
    raw(value) {
      make(value.length);
      bytes.set(value, start);
    },
    finish(room) {
      const all = Buffer.allocUnsafe(room + bytes.length - start);
      all.fill(0, 0, room);
      bytes.copy(all, room, start);
      return all;
    },
  };
}

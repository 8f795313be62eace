/** The compression of headers (RFC 7541). What is sent is not compressed, so that it may be made once and sent to everybody. */
import { ConnectionError, errorCode } from "./frames.ts";
import { decodeHuffman } from "./huffman.ts";

/** Names and values by turns: name, value, name, value. */
export type HeaderList = readonly string[];

/** The static table (appendix A), names and values by turns. */
// biome-ignore format: a table
const staticTable: HeaderList = [
  ":authority", "", ":method", "GET", ":method", "POST", ":path", "/", ":path", "/index.html", ":scheme", "http",
  ":scheme", "https", ":status", "200", ":status", "204", ":status", "206", ":status", "304", ":status", "400",
  ":status", "404", ":status", "500", "accept-charset", "", "accept-encoding", "gzip, deflate", "accept-language", "", "accept-ranges", "",
  "accept", "", "access-control-allow-origin", "", "age", "", "allow", "", "authorization", "", "cache-control", "",
  "content-disposition", "", "content-encoding", "", "content-language", "", "content-length", "", "content-location", "", "content-range", "",
  "content-type", "", "cookie", "", "date", "", "etag", "", "expect", "", "expires", "",
  "from", "", "host", "", "if-match", "", "if-modified-since", "", "if-none-match", "", "if-range", "",
  "if-unmodified-since", "", "last-modified", "", "link", "", "location", "", "max-forwards", "", "proxy-authenticate", "",
  "proxy-authorization", "", "range", "", "referer", "", "refresh", "", "retry-after", "", "server", "",
  "set-cookie", "", "strict-transport-security", "", "transfer-encoding", "", "user-agent", "", "vary", "", "via", "",
  "www-authenticate", "",
];
const staticEntries = staticTable.length / 2;

/** The largest table that a peer may use; it is what it may use before anybody has said anything else. */
export const maxTableBytes = 4_096;
/** What an entry counts beside its characters (section 4.1). */
const entryBytes = 32;

export class HeaderDecoder {
  readonly #maxListBytes: number;
  /** The dynamic table, names and values by turns; the newest entry is the last. */
  #table: string[] = [];
  #tableBytes = 0;
  #maxBytes = maxTableBytes;
  /** Of what is being decoded. */
  #block: Buffer = Buffer.alloc(0);
  #at = 0;

  /** @param maxListBytes Of the headers of a message, with 32 for each; beyond it decoding fails. */
  constructor(maxListBytes: number) {
    this.#maxListBytes = maxListBytes;
  }

  /** Blocks must be decoded in the order in which they come, whether anybody wants them or not. Throws a ConnectionError. */
  decode(block: Buffer): HeaderList {
    this.#block = block;
    this.#at = 0;
    const list: string[] = [];
    let listBytes = 0;
    while (this.#at < block.length) {
      const first = block[this.#at] ?? 0;
      if (first >= 0x80) {
        const index = this.#integer(7);
        list.push(this.#nameAt(index), this.#valueAt(index));
      } else if (first >= 0x40) {
        const [name, value] = this.#literal(6);
        this.#remember(name, value);
        list.push(name, value);
      } else if (first >= 0x20) {
        if (list.length > 0) throw broken("the size of the table changes within a block");
        this.#resize(this.#integer(5));
        continue;
      } else {
        list.push(...this.#literal(4));
      }
      listBytes += sizeOf(list.at(-2) ?? "", list.at(-1) ?? "");
      if (listBytes > this.#maxListBytes) {
        const text = `the headers of a message have more than ${this.#maxListBytes} bytes`;
        throw new ConnectionError(errorCode.enhanceYourCalm, text);
      }
    }
    return list;
  }

  #literal(prefixBits: number): [name: string, value: string] {
    const index = this.#integer(prefixBits);
    const name = index === 0 ? this.#string() : this.#nameAt(index);
    return [name, this.#string()];
  }

  /** An integer whose first bits are the last of a byte (section 5.1). */
  #integer(prefixBits: number): number {
    const limit = 2 ** prefixBits - 1;
    const first = (this.#block[this.#at++] ?? 0) & limit;
    if (first < limit) return first;
    let value = limit;
    // Nothing that fits into a block needs more than three bytes.
    for (let shift = 0; shift <= 21; shift += 7) {
      const byte = this.#block[this.#at++];
      if (byte === undefined) throw broken("a block ends within a number");
      value += (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw broken("a number is too large");
  }

  #string(): string {
    if (this.#at >= this.#block.length) throw broken("a block ends before a string");
    const isCompressed = (this.#block[this.#at] ?? 0) >= 0x80;
    const length = this.#integer(7);
    const start = this.#at;
    this.#at += length;
    if (this.#at > this.#block.length) throw broken("a block ends within a string");
    if (isCompressed) return decodeHuffman(this.#block.subarray(start, this.#at));
    return this.#block.toString("latin1", start, this.#at);
  }

  #nameAt(index: number): string {
    return this.#entry(index, 0);
  }

  #valueAt(index: number): string {
    return this.#entry(index, 1);
  }

  #entry(index: number, part: 0 | 1): string {
    const found =
      index <= staticEntries
        ? staticTable[2 * (index - 1) + part]
        : this.#table[this.#table.length - 2 * (index - staticEntries) + part];
    if (found === undefined) throw broken(`the table has no entry ${index}`);
    return found;
  }

  #remember(name: string, value: string): void {
    this.#table.push(name, value);
    this.#tableBytes += sizeOf(name, value);
    this.#evict();
  }

  #resize(bytes: number): void {
    if (bytes > maxTableBytes) throw broken(`the table cannot have ${bytes} bytes`);
    this.#maxBytes = bytes;
    this.#evict();
  }

  #evict(): void {
    let gone = 0;
    for (; this.#tableBytes > this.#maxBytes; gone += 2) {
      this.#tableBytes -= sizeOf(this.#table[gone] ?? "", this.#table[gone + 1] ?? "");
    }
    if (gone > 0) this.#table.splice(0, gone);
  }
}

function sizeOf(name: string, value: string): number {
  return name.length + value.length + entryBytes;
}

function broken(text: string): ConnectionError {
  return new ConnectionError(errorCode.compressionError, text);
}

/** Says that the table of the other side is not used. Has to come before the first headers that are sent to it (section 4.2). */
export const noTable = Buffer.of(0x20);

/** A block of headers, each in full and to be remembered by nobody: it is the same for every connection. */
export function headerBlock(headers: Iterable<readonly [name: string, value: string]>): Buffer {
  const literals = Array.from(headers, ([name, value]) => [Buffer.of(0), literal(name), literal(value)]);
  return Buffer.concat(literals.flat());
}

function literal(text: string): Buffer {
  const bytes = Buffer.from(text, "latin1");
  const length: number[] = [];
  let left = bytes.length;
  if (left < 127) length.push(left);
  else {
    length.push(127);
    for (left -= 127; left >= 128; left = Math.floor(left / 128)) length.push((left % 128) | 128);
    length.push(left);
  }
  return Buffer.concat([Buffer.from(length), bytes]);
}

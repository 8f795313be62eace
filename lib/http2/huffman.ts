/** Strings of headers as they are compressed (RFC 7541, section 5.2 and appendix B). */
import { ConnectionError, errorCode } from "./frames.ts";

/**
 * The symbols by the length of their codes, in the order of these. The codes are canonical: those of a length follow each other, and the first
 * follows the last that was shorter. 256 is the end of the string, which never stands in one.
 */
const symbolsByLength: ReadonlyMap<number, readonly number[]> = new Map([
  [5, [..."012aceiost"].map(codeOf)],
  [6, [..." %-./3456789=A_bdfghlmnpru"].map(codeOf)],
  [7, [...":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"].map(codeOf)],
  [8, [..."&*,;XZ"].map(codeOf)],
  [10, [...'!"()?'].map(codeOf)],
  [11, [..."'+|"].map(codeOf)],
  [12, [..."#>"].map(codeOf)],
  [13, [..."\0$@[]~"].map(codeOf)],
  [14, [..."^}"].map(codeOf)],
  [15, [..."<`{"].map(codeOf)],
  [19, [92, 195, 208]],
  [20, [128, 130, 131, 162, 184, 194, 224, 226]],
  [21, [153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230]],
  [
    22,
    [
      ...span(129, 129),
      ...span(132, 134),
      136,
      146,
      154,
      156,
      160,
      163,
      164,
      169,
      170,
      173,
      178,
      181,
      ...span(185, 187),
      189,
      190,
      196,
      198,
      228,
      232,
      233,
    ],
  ],
  [
    23,
    [
      1,
      135,
      ...span(137, 141),
      143,
      147,
      ...span(149, 152),
      155,
      157,
      158,
      165,
      166,
      168,
      174,
      175,
      180,
      182,
      183,
      188,
      191,
      197,
      231,
      239,
    ],
  ],
  [24, [9, 142, 144, 145, 148, 159, 171, 206, 215, 225, 236, 237]],
  [25, [199, 207, 234, 235]],
  [26, [192, 193, ...span(200, 202), 205, 210, 213, 218, 219, 238, 240, 242, 243, 255]],
  [27, [203, 204, 211, 212, 214, ...span(221, 223), 241, ...span(244, 248), ...span(250, 254)]],
  [28, [...span(2, 8), 11, 12, ...span(14, 21), ...span(23, 31), 127, 220, 249]],
  [30, [10, 13, 22, 256]],
]);

function codeOf(character: string): number {
  return character.charCodeAt(0);
}

function span(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}

const longestCode = 30;
const symbols: readonly number[] = [...symbolsByLength.values()].flat();
/** For each length: the code after its last one, and what has to be added to a code for its place among the symbols. */
const ends = new Int32Array(longestCode + 1);
const places = new Int32Array(longestCode + 1);

let code = 0;
let place = 0;
for (let length = 1; length <= longestCode; length++) {
  const count = symbolsByLength.get(length)?.length ?? 0;
  places[length] = place - code;
  code += count;
  place += count;
  ends[length] = code;
  code *= 2;
}

/** The shortest code has 5 bits. */
const mostSymbols = (bytes: number): number => Math.floor((8 * bytes) / 5);

/** Throws a ConnectionError where there is no such string. */
export function decodeHuffman(bytes: Buffer): string {
  const text = Buffer.allocUnsafe(mostSymbols(bytes.length));
  let written = 0;
  let code = 0;
  let length = 0;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] ?? 0;
    for (let bit = 7; bit >= 0; bit--) {
      code = (code << 1) | ((byte >> bit) & 1);
      length++;
      // No longer code of a string begins like this, or there is none.
      if (code >= (ends[length] ?? 0) && length < longestCode) continue;
      const symbol = symbols[code + (places[length] ?? 0)];
      if (symbol === undefined || symbol > 255)
        throw new ConnectionError(errorCode.compressionError, "a header is not compressed as it says");
      text[written++] = symbol;
      code = 0;
      length = 0;
    }
  }
  // What is left is filled up with ones, with less than a byte.
  if (length > 7 || code !== 2 ** length - 1)
    throw new ConnectionError(errorCode.compressionError, "a compressed header ends within a character");
  return text.toString("latin1", 0, written);
}

/** Blocks of headers, among them those of RFC 7541, appendix C. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ConnectionError, errorCode } from "../../../lib/http2/frames.ts";
import { HeaderDecoder, headerBlock } from "../../../lib/http2/hpack.ts";
import { decodeHuffman } from "../../../lib/http2/huffman.ts";

const maxListBytes = 65_535;

function hex(text: string): Buffer {
  return Buffer.from(text.replaceAll(" ", ""), "hex");
}

const requests: readonly (readonly string[])[] = [
  [":method", "GET", ":scheme", "http", ":path", "/", ":authority", "www.example.com"],
  [":method", "GET", ":scheme", "http", ":path", "/", ":authority", "www.example.com", "cache-control", "no-cache"],
  [
    ...[":method", "GET", ":scheme", "https", ":path", "/index.html", ":authority", "www.example.com"],
    ...["custom-key", "custom-value"],
  ],
];

const date = "Mon, 21 Oct 2013 20:13:21 GMT";
const location = "https://www.example.com";
const responses: readonly (readonly string[])[] = [
  [":status", "302", "cache-control", "private", "date", date, "location", location],
  [":status", "307", "cache-control", "private", "date", date, "location", location],
  [
    ...[":status", "200", "cache-control", "private", "date", date.replace(":21 ", ":22 "), "location", location],
    ...["content-encoding", "gzip", "set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"],
  ],
];

/** The examples are of a table of 256 bytes, which these ask for first. */
const smallTable = "3fe101";

const examples: Readonly<Record<string, { blocks: readonly string[]; lists: readonly (readonly string[])[] }>> = {
  "C.3, requests": {
    blocks: [
      "828684410f7777772e6578616d706c652e636f6d",
      "828684be58086e6f2d6361636865",
      "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
    ],
    lists: requests,
  },
  "C.4, requests with Huffman codes": {
    blocks: [
      "828684418cf1e3c2e5f23a6ba0ab90f4ff",
      "828684be5886a8eb10649cbf",
      "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
    ],
    lists: requests,
  },
  "C.5, responses": {
    blocks: [
      `${smallTable}4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d`,
      "4803333037c1c0bf",
      "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
    ],
    lists: responses,
  },
  "C.6, responses with Huffman codes": {
    blocks: [
      `${smallTable}488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3`,
      "4883640effc1c0bf",
      "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
    ],
    lists: responses,
  },
};

for (const [name, { blocks, lists }] of Object.entries(examples)) {
  test(`RFC 7541, ${name}`, () => {
    const decoder = new HeaderDecoder(maxListBytes);
    assert.deepEqual(
      blocks.map((block) => decoder.decode(hex(block))),
      lists,
    );
  });
}

test("what headerBlock writes is read, of any length", () => {
  const headers: [string, string][] = [0, 1, 126, 127, 128, 254, 255, 20_000].map((length) => [
    `x-${length}`,
    "é".repeat(length),
  ]);
  assert.deepEqual(new HeaderDecoder(maxListBytes).decode(headerBlock(headers)), headers.flat());
});

test("an entry that is as large as the table empties it", () => {
  const decoder = new HeaderDecoder(maxListBytes);
  decoder.decode(Buffer.concat([Buffer.of(0x40), literal("small"), literal("entry")]));
  assert.deepEqual(decoder.decode(Buffer.of(0xbe)), ["small", "entry"]);
  const large = "x".repeat(5_000);
  assert.deepEqual(decoder.decode(Buffer.concat([Buffer.of(0x40), literal("large"), literal(large)])), [
    "large",
    large,
  ]);
  assert.throws(() => decoder.decode(Buffer.of(0xbe)), ConnectionError);
});

/** A string as it stands in a block. */
function literal(text: string): Buffer {
  return headerBlock([[text, ""]]).subarray(1, -1);
}

const broken: Readonly<Record<string, string>> = {
  "entry 0": "80",
  "an entry that the table does not have": "be",
  "an entry far behind the table": "ffffff7f",
  "a name that the table does not have": "7e0161",
  "a number without an end": "ff",
  "a number of five bytes": "ffffffffff0f",
  "a name without a value": "400161",
  "a string that is longer than the block": "40ff00",
  "a table that grows beyond what was allowed": "3fe21f",
  "a table whose size changes behind a header": "8220",
  "a Huffman code that ends within a character": "408165",
  "padding that is not of ones": "40811c0161",
  "padding of a whole byte": "40821fff0161",
  "the end of the string as a character": "4084ffffffff0161",
};

for (const [name, block] of Object.entries(broken)) {
  test(`a block with ${name} is refused`, () => {
    const decoder = new HeaderDecoder(maxListBytes);
    const isCompressionError = (error: unknown): boolean =>
      error instanceof ConnectionError && error.code === errorCode.compressionError;
    assert.throws(() => decoder.decode(hex(block)), isCompressionError);
  });
}

test("more headers than are allowed are refused, however small the block", () => {
  const decoder = new HeaderDecoder(10_000);
  decoder.decode(Buffer.concat([Buffer.of(0x40), literal("bomb"), literal("x".repeat(4_000))]));
  assert.equal(decoder.decode(Buffer.alloc(2, 0xbe)).length, 4);
  const isTooMuch = (error: unknown): boolean =>
    error instanceof ConnectionError && error.code === errorCode.enhanceYourCalm;
  assert.throws(() => decoder.decode(Buffer.alloc(3, 0xbe)), isTooMuch);
});

test("characters are read whose Huffman codes are of any length", () => {
  // The codes as RFC 7541, appendix B, writes them: some of each length.
  const codes: Readonly<Record<string, string>> = {
    "0": "00000",
    " ": "010100",
    ":": "1011100",
    "&": "11111000",
    "!": "1111111000",
    "'": "11111111010",
    "#": "111111111010",
    "\0": "1111111111000",
    "^": "11111111111100",
    "<": "111111111111100",
    "\\": "1111111111111110000",
    "\x80": "11111111111111100110",
    "\x99": "111111111111111011100",
    "\x81": "1111111111111111010010",
    "\x01": "11111111111111111011000",
    "\x09": "111111111111111111101010",
    "\xc7": "1111111111111111111101100",
    "\xc0": "11111111111111111111100000",
    "\xfe": "111111111111111111111110000",
    "\xf9": "1111111111111111111111111110",
    "\x16": "111111111111111111111111111110",
  };
  for (const [character, code] of Object.entries(codes)) {
    for (const text of [character, character.repeat(7), `a${character}z`]) {
      const bits = [...text].map((each) => ({ ...codes, a: "00011", z: "1111011" })[each] ?? "").join("");
      const padded = bits.padEnd(8 * Math.ceil(bits.length / 8), "1");
      const bytes = Buffer.from((padded.match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2)));
      assert.equal(decodeHuffman(bytes), text, code);
    }
  }
});

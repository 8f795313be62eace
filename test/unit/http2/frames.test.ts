import assert from "node:assert/strict";
import { test } from "node:test";
import {
  createFrameReader,
  type Frame,
  flag,
  frame,
  frameType,
  headerFrames,
  unpadded,
} from "../../../lib/http2/frames.ts";
import { createHeaderJoiner } from "../../../lib/http2/header-blocks.ts";
import { createRandom } from "../../../lib/nn/random.ts";

/** The frames in bytes that come in pieces. */
function framesOf(pieces: readonly Buffer[]): Frame[] {
  const frames: Frame[] = [];
  const read = createFrameReader((received) => frames.push(received));
  for (const piece of pieces) read(piece);
  return frames;
}

test("frames are the same however the bytes are cut", () => {
  const random = createRandom(5);
  const wanted = Array.from(
    { length: 50 },
    (_, index): Frame => ({
      type: index % 10,
      flags: index,
      streamId: index * 7_919,
      payload: Buffer.alloc(random.integer(index % 9 === 0 ? 16_385 : 30), index),
    }),
  );
  const bytes = Buffer.concat(wanted.map(frame));
  for (let round = 0; round < 20; round++) {
    const pieces: Buffer[] = [];
    for (let at = 0; at < bytes.length; ) {
      const length = 1 + random.integer(round < 3 ? 3 : 20_000);
      pieces.push(bytes.subarray(at, at + length));
      at += length;
    }
    assert.deepEqual(framesOf(pieces), wanted);
  }
});

test("a frame of more than 16,384 bytes is refused by its head", () => {
  const head = Buffer.of(0, 0x40, 0x01, frameType.data, 0, 0, 0, 0, 1);
  assert.throws(() => framesOf([head]), { code: 6 });
});

test("padding and priority are left out, and must fit into their frame", () => {
  const headers = { type: frameType.headers, streamId: 1 };
  const padded = { ...headers, flags: flag.padded, payload: Buffer.from([2, 7, 8, 0, 0]) };
  assert.deepEqual(unpadded(padded), Buffer.from([7, 8]));
  const both = { ...headers, flags: flag.padded | flag.priority, payload: Buffer.from([1, 0, 0, 0, 0, 9, 7, 0]) };
  assert.deepEqual(unpadded(both), Buffer.from([7]));
  assert.throws(() => unpadded({ ...padded, payload: Buffer.from([5, 7, 8]) }), { code: 1 });
  assert.throws(() => unpadded({ ...padded, payload: Buffer.alloc(0) }), { code: 6 });
  assert.throws(() => unpadded({ ...both, payload: Buffer.from([0, 0, 0, 0]) }), { code: 6 });
});

test("a block of headers takes as many frames as it needs, which are joined again", () => {
  const join = createHeaderJoiner(100_000);
  for (const length of [0, 1, 16_384, 16_385, 40_000]) {
    const block = Buffer.alloc(length, "h");
    const frames = framesOf([headerFrames(3, block, true)]);
    assert.equal(frames.length, Math.max(1, Math.ceil(length / 16_384)));
    const joined = frames.map(join).filter((whole) => whole !== undefined);
    assert.equal(joined.length, 1);
    assert.deepEqual(joined[0]?.payload, block);
    assert.equal((joined[0]?.flags ?? 0) & flag.endStream, flag.endStream);
  }
});

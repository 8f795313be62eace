import assert from "node:assert/strict";
import { describe, it } from "node:test";
import sharp, { type JpegOptions, type Sharp } from "sharp";
import { planesOf } from "../../../lib/images/planes.ts";
import { randomFor } from "../../../lib/images/random.ts";
import { decodeSmallJpeg } from "../../../lib/images/small-jpeg.ts";

const shape = { height: 32, width: 32, channels: 3 };

/** Smooth patches of random colours, so that it compresses like a photograph. */
function picture(seed: number, { width = 32, height = 32, channels = 3 as 1 | 3 } = {}): Sharp {
  const random = randomFor("picture", seed);
  const patches = Uint8Array.from({ length: 8 * 8 * channels }, () => random.integer(256));
  return sharp(patches, { raw: { width: 8, height: 8, channels } }).resize(width, height, { fit: "fill" });
}

const jpeg = (seed = 1, options: JpegOptions = {}) => picture(seed).jpeg(options).toBuffer();

const bySharp = async (bytes: Uint8Array) => planesOf(await sharp(bytes).toColourspace("srgb").raw().toBuffer(), 3);

async function assertSame(bytes: Uint8Array): Promise<void> {
  const pixels = decodeSmallJpeg(bytes, shape);
  assert.ok(pixels, "it was left to sharp");
  assert.deepEqual(pixels, await bySharp(bytes));
}

describe("decodeSmallJpeg", () => {
  it("gives the pixels that sharp gives, for every quality, subsampling and kind of table", async () => {
    for (let quality = 1; quality <= 100; quality++) {
      const random = randomFor("file", quality);
      const chromaSubsampling = random.chance(0.5) ? "4:4:4" : "4:2:0";
      const tables = { optimiseCoding: random.chance(0.5), trellisQuantisation: random.chance(0.5) };
      await assertSame(await jpeg(quality, { quality, chromaSubsampling, ...tables }));
    }
  });

  it("decodes images whose sides are no multiples of a block's", async () => {
    const odd = await picture(3, { width: 31, height: 29 }).jpeg().toBuffer();
    const pixels = decodeSmallJpeg(odd, { height: 29, width: 31, channels: 3 });
    assert.deepEqual(pixels, await bySharp(odd));
  });

  it("gives pixels that the next image leaves as they are", async () => {
    const first = decodeSmallJpeg(await jpeg(1), shape);
    const before = first?.slice();
    decodeSmallJpeg(await jpeg(2), shape);
    assert.deepEqual(first, before);
  });

  const others: Record<string, () => Promise<Uint8Array>> = {
    "of another size": () => picture(1, { width: 33 }).jpeg().toBuffer(),
    "with its sides exchanged": () => picture(1, { width: 16, height: 64 }).jpeg().toBuffer(),
    progressive: () => jpeg(1, { progressive: true }),
    "in grey": () => picture(1, { channels: 1 }).toColourspace("b-w").jpeg().toBuffer(),
    "in CMYK": () => picture(1).toColourspace("cmyk").jpeg().toBuffer(),
    "to be turned (EXIF)": () => picture(1).withMetadata({ orientation: 6 }).jpeg().toBuffer(),
    "with a colour profile": () => picture(1).withIccProfile("p3").jpeg().toBuffer(),
    "in PNG": () => picture(1).png().toBuffer(),
    "of no bytes": async () => new Uint8Array(),
  };
  for (const [name, file] of Object.entries(others)) {
    it(`leaves an image ${name} to sharp`, async () => {
      assert.equal(decodeSmallJpeg(await file(), shape), undefined);
    });
  }

  it("leaves large images to sharp, which has threads for them", async () => {
    const large = { height: 65, width: 64 };
    const bytes = await picture(1, large).jpeg().toBuffer();
    assert.equal(decodeSmallJpeg(bytes, { ...large, channels: 3 }), undefined);
  });

  it("leaves files to sharp that end too early, wherever that is", async () => {
    const whole = await jpeg();
    for (let length = 0; length < whole.length - 1; length++) {
      assert.equal(decodeSmallJpeg(whole.subarray(0, length), shape), undefined, `${length} bytes`);
    }
  });

  it("survives any damage, and decodes whole files right afterwards", async () => {
    const whole = await jpeg();
    for (let seed = 0; seed < 3000; seed++) {
      const random = randomFor("damage", seed);
      const damaged = Uint8Array.from(whole);
      for (let change = 0; change <= seed % 8; change++) damaged[random.integer(whole.length)] = random.integer(256);
      const pixels = decodeSmallJpeg(damaged, shape);
      assert.ok(pixels === undefined || pixels.length === 32 * 32 * 3, `seed ${seed}`);
    }
    await assertSame(whole);
  });
});

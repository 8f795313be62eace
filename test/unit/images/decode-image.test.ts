import assert from "node:assert/strict";
import { describe, it, test } from "node:test";
import sharp from "sharp";
import { decodeImage, heldPixels, maxSvgBytes } from "../../../lib/images/decode-image.ts";
import { tempFolder } from "../../helpers/temp-folder.ts";
import { plainImage, writeFolder } from "./inputs.ts";

const shape = { height: 2, width: 2, channels: 3 };

/** The first pixel's red, green and blue. */
async function firstColour(bytes: Uint8Array): Promise<number[]> {
  const pixels = await decodeImage(bytes, shape);
  assert.equal(pixels.length, 12);
  return [pixels[0] ?? -1, pixels[4] ?? -1, pixels[8] ?? -1];
}

function assertNear(actual: readonly number[], expected: readonly number[], tolerance: number): void {
  const far = actual.some((value, index) => Math.abs(value - (expected[index] ?? 0)) > tolerance);
  assert.ok(!far, `${actual} is not within ${tolerance} of ${expected}`);
}

const orange = () => sharp({ create: { width: 16, height: 16, channels: 3, background: { r: 200, g: 100, b: 50 } } });
const noise = () =>
  sharp({
    create: {
      width: 64,
      height: 64,
      channels: 3,
      background: "#000",
      noise: { type: "gaussian", mean: 128, sigma: 30 },
    },
  });

describe("decodeImage", () => {
  it("gives channel after channel, row by row", async () => {
    const raw = Buffer.from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    const png = await sharp(raw, { raw: { width: 2, height: 2, channels: 3 } })
      .png()
      .toBuffer();
    assert.deepEqual([...(await decodeImage(png, shape))], [1, 4, 7, 10, 2, 5, 8, 11, 3, 6, 9, 12]);
  });

  for (const format of ["png", "jpeg", "webp", "avif", "gif", "tiff"] as const) {
    it(`reads ${format}`, async () => {
      assertNear(await firstColour(await orange().toFormat(format).toBuffer()), [200, 100, 50], 6);
    });
  }

  it("turns CMYK into sRGB", async () => {
    const red = sharp({ create: { width: 8, height: 8, channels: 3, background: "#f00" } });
    const [r = 0, g = 0, b = 0] = await firstColour(await red.toColourspace("cmyk").jpeg().toBuffer());
    assert.ok(r > 200 && g < 80 && b < 80, `${[r, g, b]}`);
  });

  it("gives grey the same value in all channels", async () => {
    const [r, g, b] = await firstColour(await orange().toColourspace("b-w").png().toBuffer());
    assert.deepEqual([r, r], [g, b]);
  });

  it("lays what is transparent on white", async () => {
    const clear = { r: 255, g: 0, b: 0, alpha: 0.5 };
    const png = await sharp({ create: { width: 8, height: 8, channels: 4, background: clear } })
      .png()
      .toBuffer();
    assertNear(await firstColour(png), [255, 127, 127], 1);
  });

  it("scales 16-bit samples down to 8 bits", async () => {
    assertNear(await firstColour(await orange().toColourspace("rgb16").png().toBuffer()), [200, 100, 50], 1);
  });

  it("takes the first frame of an animation", async () => {
    const frames = [await plainImage("#0000ff"), await plainImage("#ff0000")];
    const gif = await sharp(frames, { join: { animated: true } })
      .gif()
      .toBuffer();
    assertNear(await firstColour(gif), [0, 0, 255], 3);
  });

  it("applies the camera's rotation", async () => {
    const blueBelow = {
      input: { create: { width: 8, height: 4, channels: 3 as const, background: "#00f" } },
      top: 4,
      left: 0,
    };
    const red = sharp({ create: { width: 8, height: 8, channels: 3, background: "#f00" } }).composite([blueBelow]);
    const upsideDown = await red
      .withMetadata({ orientation: 3 })
      .jpeg({ quality: 100, chromaSubsampling: "4:4:4" })
      .toBuffer();
    assertNear(await firstColour(upsideDown), [0, 0, 255], 25);
  });

  it("cuts the middle out of a wide image instead of squeezing it", async () => {
    const raw = Buffer.alloc(60 * 20 * 3);
    for (let pixel = 0; pixel < 60 * 20; pixel++) raw[pixel * 3 + Math.floor((pixel % 60) / 20)] = 255;
    const png = await sharp(raw, { raw: { width: 60, height: 20, channels: 3 } })
      .png()
      .toBuffer();
    const pixels = await decodeImage(png, { height: 20, width: 20, channels: 3 });
    const middle = 10 * 20 + 10;
    assert.deepEqual([pixels[middle], pixels[400 + middle], pixels[800 + middle]], [0, 255, 0]);
  });

  it("refuses an image with too many pixels, naming its size", async () => {
    const wide = sharp({ create: { width: 100_000, height: 600, channels: 3, background: "#fff" } });
    await assert.rejects(async () => decodeImage(await wide.png().toBuffer(), shape), {
      code: "IMAGE_TOO_LARGE",
      message: /100000 x 600 pixels; the limit is 50 megapixels/,
    });
  });

  it("reads an image 100,000 pixels wide whose area is within the limit", async () => {
    const strip = sharp({ create: { width: 100_000, height: 10, channels: 3, background: "#0f0" } });
    assert.deepEqual(await firstColour(await strip.png().toBuffer()), [0, 255, 0]);
  });

  const noImages: Readonly<Record<string, string>> = {
    text: "hello, this is text",
    "comma-separated values": "1,2,3\n4,5,6\n",
    "a web page": "<html><body>hello</body></html>",
    "a script that begins like a GIF": "GIF89a/*AAAA*/=1;alert(1)",
    "a PDF": "%PDF-1.4\n%%EOF",
  };
  for (const [what, text] of Object.entries(noImages)) {
    it(`refuses ${what}`, async () => {
      await assert.rejects(async () => decodeImage(Buffer.from(text), shape), { code: "IMAGE_UNREADABLE" });
    });
  }

  it("says so when there are no bytes", async () => {
    await assert.rejects(async () => decodeImage(new Uint8Array(), shape), {
      code: "IMAGE_UNREADABLE",
      message: /empty \(0 bytes\)/,
    });
  });

  for (const format of ["png", "jpeg", "webp", "avif", "gif"] as const) {
    it(`refuses a truncated ${format} instead of filling it up with grey`, async () => {
      const whole = await noise().toFormat(format).toBuffer();
      const half = whole.subarray(0, Math.floor(whole.length / 2));
      await assert.rejects(async () => decodeImage(half, shape), {
        code: "IMAGE_UNREADABLE",
        message: /damaged or incomplete/,
      });
    });
  }

  it("decodes to three channels only", async () => {
    const grey = { ...shape, channels: 1 };
    await assert.rejects(async () => decodeImage(await plainImage("#fff"), grey), { code: "INVALID_REQUEST" });
  });
});

test("every image holds its pixels while it is decoded, but not a JPEG as cameras write it", async () => {
  const image = sharp({ create: { width: 40, height: 30, channels: 3, background: "#123456" } });
  const held = async (file: Promise<Buffer>) => heldPixels(await sharp(await file).metadata());
  const jpeg = () => image.clone().jpeg();
  for (const byRows of [jpeg(), jpeg().withMetadata({ orientation: 6 })])
    assert.equal(await held(byRows.toBuffer()), 0);
  for (const whole of [image.clone().jpeg({ progressive: true }), image.clone().png(), image.clone().webp()]) {
    assert.equal(await held(whole.toBuffer()), 40 * 30);
  }
});

describe("decodeImage of SVG", () => {
  const svg = (body: string, size = 10): Buffer =>
    Buffer.from(`<svg xmlns="http://www.w3.org/2000/svg" width="${size}" height="${size}">${body}</svg>`);

  it("draws it", async () => {
    assert.deepEqual(await firstColour(svg('<rect width="10" height="10" fill="#ff0000"/>')), [255, 0, 0]);
  });

  it("does not read the files that it refers to", async (t) => {
    const folder = await writeFolder(await tempFolder(t), { "red.png": await plainImage("#ff0000") });
    const reference = svg(`<image href="file://${folder}/red.png" width="10" height="10"/>`);
    assert.deepEqual(await firstColour(reference), [255, 255, 255]);
  });

  it("does not expand entities without end", async () => {
    const levels = Array.from({ length: 12 }, (_, n) => `<!ENTITY a${n + 1} "${`&a${n};`.repeat(10)}">`).join("");
    const bomb = `<!DOCTYPE svg [<!ENTITY a0 "aaaaaaaaaa">${levels}]>${svg("<text>&a12;</text>")}`;
    await assert.rejects(async () => decodeImage(Buffer.from(bomb), shape), { code: "IMAGE_UNREADABLE" });
  });

  it("is refused when it asks for too many pixels", async () => {
    await assert.rejects(async () => decodeImage(svg("", 100_000), shape), { code: "IMAGE_TOO_LARGE" });
  });

  it("is refused when it is long", async () => {
    const long = svg(`<!-- ${"x".repeat(maxSvgBytes)} -->`);
    for (const before of ["", "\n".repeat(600), "\u00ef\u00bb\u00bf  "]) {
      const bytes = Buffer.concat([Buffer.from(before, "latin1"), long]);
      await assert.rejects(async () => decodeImage(bytes, shape), { code: "IMAGE_TOO_LARGE", message: /the SVG has/ });
    }
  });

  it("is refused when it is compressed", async () => {
    const compressed = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0]);
    await assert.rejects(async () => decodeImage(compressed, shape), {
      code: "IMAGE_UNREADABLE",
      message: /compressed/,
    });
  });
});

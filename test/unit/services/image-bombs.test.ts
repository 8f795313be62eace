/** Files that are no image, or far more of one than they look, over real gRPC: refused in words, at once, and without the memory that they ask for. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import sharp from "sharp";
import { createMillraceClient, type MillraceClient } from "../../../client/client.ts";
import { BadRequestSchema } from "../../../gen/google/rpc/error_details_pb.ts";
import { flatPng } from "../../helpers/flat-png.ts";
import { startPredictionService } from "../../helpers/prediction-server.ts";
import { rejection } from "../rpc/server-fixture.ts";

/** As many at once as Node's pool has threads. */
const atOnce = 4;
/** A refusal is a matter of milliseconds; a machine that runs other tests may take longer. */
const timeoutMs = 5_000;

const noise = { type: "gaussian", mean: 128, sigma: 30 } as const;
const photo = sharp({ create: { width: 600, height: 400, channels: 3, background: "#000", noise } });
const [jpeg, png, webp] = await Promise.all([photo.jpeg().toBuffer(), photo.png().toBuffer(), photo.webp().toBuffer()]);
const gif = await photo.gif().toBuffer();
const half = (file: Buffer) => file.subarray(0, file.length / 2);
const embedded = flatPng({ width: 11_000, height: 11_000 }).toString("base64");

const refused: Readonly<Record<string, { readonly file: Buffer; readonly says: RegExp }>> = {
  "0 bytes": { file: Buffer.alloc(0), says: /image/ },
  "half a JPEG": { file: half(jpeg), says: /damaged or incomplete/ },
  "half a PNG": { file: half(png), says: /damaged or incomplete/ },
  "half a WebP": { file: half(webp), says: /damaged or incomplete/ },
  "a JPEG's header before a web page": {
    file: Buffer.concat([jpeg.subarray(0, 20), Buffer.from("<html><script>alert(1)</script></html>")]),
    says: /damaged or incomplete/,
  },
  "a PNG's signature before a GIF": { file: Buffer.concat([png.subarray(0, 8), gif]), says: /damaged or incomplete/ },
  "a script that begins like a GIF": { file: Buffer.from("GIF89a/*AAAA*/=1;alert(1)"), says: /can be read|damaged/ },
  "a flat PNG of 400 megapixels": { file: flatPng({ width: 20_000, height: 20_000 }), says: /limit is 25 megapixels/ },
  "a flat PNG of 50 megapixels": { file: flatPng({ width: 10_000, height: 5_000 }), says: /10000 x 5000 pixels/ },
  "an interlaced PNG of 49 megapixels": {
    file: flatPng({ width: 7_000, height: 7_000, interlaced: true }),
    says: /7000 x 7000 pixels/,
  },
  "an SVG with a PNG of 121 megapixels in it": {
    file: Buffer.from(
      `<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="data:image/png;base64,${embedded}"/></svg>`,
    ),
    says: /SVG is not taken/,
  },
};

async function startClient(t: TestContext): Promise<MillraceClient["predictions"]> {
  const { url } = await startPredictionService(t);
  const { predictions, close } = createMillraceClient({ baseUrl: url, retries: 0 });
  t.after(close);
  await predictions.predict({ input: { case: "image", value: png } });
  return predictions;
}

/** By how many megabytes the process's memory rises above what it ever was. */
async function peakGrowthMb(work: () => Promise<void>): Promise<number> {
  const peakMb = () => process.resourceUsage().maxRSS / 1024;
  const before = peakMb();
  await work();
  return peakMb() - before;
}

test("what is no image, or a bomb, is refused with its field, at once and in the memory that there is", async (t) => {
  const predictions = await startClient(t);
  const growthMb = await peakGrowthMb(async () => {
    for (const [name, { file, says }] of Object.entries(refused)) {
      const send = () => rejection(predictions.predict({ input: { case: "image", value: file } }, { timeoutMs }));
      for (const thrown of await Promise.all(Array.from({ length: atOnce }, send))) {
        const error = ConnectError.from(thrown);
        assert.equal(Code[error.code], "InvalidArgument", `${name}: ${error.message}`);
        const [violation] = error.findDetails(BadRequestSchema)[0]?.fieldViolations ?? [];
        assert.equal(violation?.field, "image", name);
        assert.match(error.rawMessage, says, name);
      }
    }
  });
  assert.ok(growthMb < 100, `memory rose by ${growthMb} MB`);
});

test("of images that are decoded as a whole no more are decoded at a time than there is room for", async (t) => {
  const predictions = await startClient(t);
  const file = flatPng({ width: 5_000, height: 5_000, interlaced: true });
  // One takes 75 MB.
  const growthMb = await peakGrowthMb(async () => {
    const send = () => predictions.predict({ input: { case: "image", value: file }, topK: 1 });
    const answers = await Promise.all(Array.from({ length: 2 * atOnce }, send));
    assert.ok(answers.every((answer) => answer.predictions.length === 1));
  });
  assert.ok(growthMb < 180, `memory rose by ${growthMb} MB`);
});

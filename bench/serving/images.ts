import sharp from "sharp";
import { decodeImage } from "../../lib/images/decode-image.ts";
import { createRandom } from "../../lib/nn/random.ts";
import { shape } from "./model.ts";

/** An image as clients have it. */
export interface SampleImage {
  readonly jpeg: Uint8Array;
  /** The same decoded: uint8 [C, H, W]. */
  readonly pixels: Uint8Array;
}

/** Blurred colours, about as large a file as a photograph of this size: noise would take longer to decode. */
const coarseSize = 12;

/** Images of the model's size, the same ones each time. */
export function sampleImages(count: number): Promise<SampleImage[]> {
  const random = createRandom(1);
  const { height, width, channels } = shape;
  const coarse = { width: coarseSize, height: coarseSize, channels } as const;
  return Promise.all(
    Array.from({ length: count }, async () => {
      const noise = Uint8Array.from({ length: coarseSize ** 2 * channels }, () => random.integer(256));
      const jpeg = await sharp(noise, { raw: { ...coarse, channels: 3 } })
        .resize(width, height, { fit: "fill", kernel: "cubic" })
        .jpeg({ quality: 90 })
        .toBuffer();
      return { jpeg, pixels: await decodeImage(jpeg, shape) };
    }),
  );
}

import { availableParallelism } from "node:os";
import sharp from "sharp";
import { AppError } from "../errors.ts";
import { planesOf } from "./planes.ts";
import { decodeSmallJpeg } from "./small-jpeg.ts";
import type { PixelShape } from "./sources/source.ts";

/** Images with more pixels are refused: 50 megapixels, which no camera's ordinary photograph reaches. */
export const maxImagePixels = 50_000_000;

/** Files with more bytes are refused before they are read. */
export const maxImageBytes = 128 * 1024 * 1024;

/** SVG files with more bytes are refused: text can ask for far more work than its length shows. */
export const maxSvgBytes = 256 * 1024;

/** Seconds after which the decoding of one image is given up. */
const decodeTimeoutSeconds = 20;

/**
 * Images to have under way at once so that no thread of Node's pool, which has 4 or one a core, waits for the event loop.
 */
export const decodeConcurrency = 2 * Math.max(4, availableParallelism());

// One thread an image and many images at once beats many threads on a small image; images are not read twice, so a
// cache of operations would only hold memory.
sharp.concurrency(1);
sharp.cache(false);

/**
 * Decodes an image file to pixels as a classifier takes them: unsigned bytes, channel by channel, row by row.
 *
 * Reads every format that sharp reads. The camera's rotation (EXIF) is applied; grey, CMYK and images with colour profiles become
 * sRGB, 16-bit samples 8-bit; what is transparent becomes white; of an animation the first frame is taken. The image is
 * scaled so that it covers the shape and the middle is cut out, so nothing is distorted. SVG is drawn without reading any
 * file or address that it refers to.
 *
 * A small JPEG of this very shape is decoded at once, whatever else in a thread; so what is wrong is thrown at once, or rejects.
 *
 * @throws AppError IMAGE_UNREADABLE when the bytes are no image or a damaged one; IMAGE_TOO_LARGE beyond `maxImagePixels`;
 * INVALID_REQUEST when the shape has other than 3 channels.
 */
export function decodeImage(bytes: Uint8Array, shape: PixelShape): Promise<Uint8Array> | Uint8Array {
  const { channels } = shape;
  if (channels !== 3) throw new AppError("INVALID_REQUEST", `images are decoded to 3 channels, not to ${channels}`);
  refuseByContent(bytes);
  return decodeSmallJpeg(bytes, shape) ?? decodeAny(bytes, shape);
}

async function decodeAny(bytes: Uint8Array, { height, width, channels }: PixelShape): Promise<Uint8Array> {
  try {
    const interleaved = await sharp(bytes, { failOn: "error", limitInputPixels: maxImagePixels })
      .autoOrient()
      .resize(width, height, { fit: "cover" })
      .flatten({ background: "#ffffff" })
      .toColourspace("srgb")
      .timeout({ seconds: decodeTimeoutSeconds })
      .raw()
      .toBuffer();
    return planesOf(interleaved, channels);
  } catch (error) {
    throw await explained(bytes, error);
  }
}

function refuseByContent(bytes: Uint8Array): void {
  if (bytes.length === 0) throw new AppError("IMAGE_UNREADABLE", "the file is empty (0 bytes)");
  // SVG may come compressed, and nothing else that can be read begins like gzip.
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) throw new AppError("IMAGE_UNREADABLE", "the file is compressed (gzip)");
  if (bytes.length > maxSvgBytes && looksLikeSvg(bytes)) {
    throw new AppError("IMAGE_TOO_LARGE", `the SVG has ${bytes.length} bytes; the limit is ${maxSvgBytes}`);
  }
}

function looksLikeSvg(bytes: Uint8Array): boolean {
  const isMarked = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
  let at = isMarked ? 3 : 0;
  while (isSpace(bytes[at])) at++;
  return bytes[at] === "<".charCodeAt(0);
}

function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || (byte !== undefined && byte >= 0x09 && byte <= 0x0d);
}

/** What sharp's error means to the person whose image it is. */
async function explained(bytes: Uint8Array, error: unknown): Promise<AppError> {
  const said = error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error);
  if (/pixel limit/i.test(said)) {
    const { width = 0, height = 0 } = await sharp(bytes, { limitInputPixels: false }).metadata();
    const limit = `${maxImagePixels / 1e6} megapixels`;
    return new AppError("IMAGE_TOO_LARGE", `the image has ${width} x ${height} pixels; the limit is ${limit}`);
  }
  if (/unsupported image format/i.test(said)) {
    const formats = "JPEG, PNG, WebP, AVIF, GIF, TIFF and SVG";
    return new AppError("IMAGE_UNREADABLE", `the file is no image in a format that can be read (${formats})`);
  }
  return new AppError("IMAGE_UNREADABLE", `the file is damaged or incomplete: ${said}`, { cause: error });
}

import { availableParallelism } from "node:os";
import sharp, { type Metadata } from "sharp";
import { AppError } from "../errors.ts";
import { createPixelRoom } from "./pixel-room.ts";
import { planesOf } from "./planes.ts";
import { decodeSmallJpeg } from "./small-jpeg.ts";
import type { PixelShape } from "./sources/source.ts";

/** Files with more bytes are refused before they are read. */
export const maxImageBytes = 128 * 1024 * 1024;

/** SVG files with more bytes are refused: text can ask for far more work than its length shows. */
export const maxSvgBytes = 256 * 1024;

/**
 * Images with more pixels need room to be decoded: with their number known, no more of them are decoded at a time than memory allows. A file's size
 * says nothing of it: 7000 x 7000 grey pixels may be 160 KB of PNG. Interlaced PNG, progressive JPEG and AVIF are decoded as a whole, for which
 * sharp 0.35.5 took 3 to 18 bytes a pixel.
 */
const largePixels = 2_500_000;

/**
 * Seconds after which the decoding of one image is given up. sharp looks at the clock between parts of the result, and what is as small as most networks
 * take is one part: there the number of pixels is all that bounds the time.
 */
const decodeTimeoutSeconds = 20;

export interface DecodeLimits {
  /** Images with more pixels are refused by their header. */
  readonly maxPixels: number;
  /** Pixels that images above 2.5 megapixels may hold together at a time; see {@link heldPixels}. At least `maxPixels`. */
  readonly maxHeldPixels: number;
  /** Whether SVG is drawn. Its text may hold a bomb of another format, which no header shows: 20 KB took 1.2 GB. */
  readonly takesSvg: boolean;
}

/** Gives pixels, unsigned bytes [C, H, W]. What is wrong is thrown at once, or rejects. */
export type ImageDecoder = (bytes: Uint8Array, shape: PixelShape) => Promise<Uint8Array> | Uint8Array;

/**
 * Images to have under way at once so that no thread of Node's pool, which has 4 or one a core, waits for the event loop.
 */
export const decodeConcurrency = 2 * Math.max(4, availableParallelism());

// One thread an image and many images at once beats many threads on a small image; images are not read twice, so a
// cache of operations would only hold memory.
sharp.concurrency(1);
sharp.cache(false);

/**
 * Makes a function that decodes image files to pixels as a classifier takes them: unsigned bytes, channel by channel, row by row.
 *
 * It reads every format that sharp reads. The camera's rotation (EXIF) is applied; grey, CMYK and images with colour profiles become
 * sRGB, 16-bit samples 8-bit; what is transparent becomes white; of an animation the first frame is taken. The image is
 * scaled so that it covers the shape and the middle is cut out, so nothing is distorted. SVG is drawn without reading any
 * file or address that it refers to.
 *
 * A small JPEG of this very shape is decoded at once, whatever else in a thread; so what is wrong is thrown at once, or rejects:
 * AppError IMAGE_UNREADABLE when the bytes are no image or a damaged one, IMAGE_TOO_LARGE beyond a limit,
 * INVALID_REQUEST when the shape has other than 3 channels.
 */
export function createImageDecoder(limits: DecodeLimits): ImageDecoder {
  const { maxPixels, maxHeldPixels, takesSvg } = limits;
  const room = createPixelRoom(maxHeldPixels);

  async function decodeAny(bytes: Uint8Array, shape: PixelShape): Promise<Uint8Array> {
    try {
      return await decodeBySharp(bytes, shape, Math.min(largePixels, maxPixels));
    } catch (error) {
      if (!isOverPixels(error)) throw explained(error, takesSvg);
    }
    const metadata = await sharp(bytes, { limitInputPixels: false }).metadata();
    const { width, height } = metadata;
    if (width * height > maxPixels) {
      const limit = `${maxPixels / 1e6} megapixels`;
      throw new AppError("IMAGE_TOO_LARGE", `the image has ${width} x ${height} pixels; the limit is ${limit}`);
    }
    return room.use(heldPixels(metadata), () =>
      decodeBySharp(bytes, shape, maxPixels).catch((error: unknown) => {
        throw explained(error, takesSvg);
      }),
    );
  }

  return (bytes, shape) => {
    const { channels } = shape;
    if (channels !== 3) throw new AppError("INVALID_REQUEST", `images are decoded to 3 channels, not to ${channels}`);
    refuseByContent(bytes, takesSvg);
    return decodeSmallJpeg(bytes, shape) ?? decodeAny(bytes, shape);
  };
}

/**
 * For data sets, whose owner has chosen them and waits: up to 50 megapixels, which no camera's ordinary photograph reaches, as many at a time as there are
 * threads. See {@link createImageDecoder}.
 */
export const decodeImage: ImageDecoder = createImageDecoder({
  maxPixels: 50_000_000,
  maxHeldPixels: Number.POSITIVE_INFINITY,
  takesSvg: true,
});

/** Pixels of an image that count as held while it is decoded: none of a JPEG as cameras write it, which is made smaller while it is read, row by row. */
export function heldPixels({ format, isProgressive, width, height }: Metadata): number {
  return format === "jpeg" && !isProgressive ? 0 : width * height;
}

async function decodeBySharp(
  bytes: Uint8Array,
  { height, width, channels }: PixelShape,
  maxPixels: number,
): Promise<Uint8Array> {
  const interleaved = await sharp(bytes, { failOn: "error", limitInputPixels: maxPixels })
    .autoOrient()
    .resize(width, height, { fit: "cover" })
    .flatten({ background: "#ffffff" })
    .toColourspace("srgb")
    .timeout({ seconds: decodeTimeoutSeconds })
    .raw()
    .toBuffer();
  return planesOf(interleaved, channels);
}

function refuseByContent(bytes: Uint8Array, takesSvg: boolean): void {
  if (bytes.length === 0) throw new AppError("IMAGE_UNREADABLE", "the file is empty (0 bytes)");
  // SVG may come compressed, and nothing else that can be read begins like gzip.
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) throw new AppError("IMAGE_UNREADABLE", "the file is compressed (gzip)");
  if ((takesSvg && bytes.length <= maxSvgBytes) || !looksLikeSvg(bytes)) return;
  if (!takesSvg) throw new AppError("IMAGE_UNREADABLE", "SVG is not taken here; send it drawn, as PNG for example");
  throw new AppError("IMAGE_TOO_LARGE", `the SVG has ${bytes.length} bytes; the limit is ${maxSvgBytes}`);
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

/** The first line of what sharp says. */
function saidBy(error: unknown): string {
  return error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error);
}

function isOverPixels(error: unknown): boolean {
  return /pixel limit/i.test(saidBy(error));
}

/** What sharp's error means to the person whose image it is. */
function explained(error: unknown, takesSvg: boolean): AppError {
  const said = saidBy(error);
  if (/unsupported image format/i.test(said)) {
    const formats = takesSvg ? "JPEG, PNG, WebP, AVIF, GIF, TIFF and SVG" : "JPEG, PNG, WebP, AVIF, GIF and TIFF";
    return new AppError("IMAGE_UNREADABLE", `the file is no image in a format that can be read (${formats})`);
  }
  return new AppError("IMAGE_UNREADABLE", `the file is damaged or incomplete: ${said}`, { cause: error });
}

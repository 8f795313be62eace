/**
 * A second decoder, for the commonest image that a small classifier gets: a JPEG of exactly its size. To set up sharp for one
 * such image costs a thread and the event loop some twenty times what decoding it takes.
 */
import createCodec from "@cornerstonejs/codec-libjpeg-turbo-8bit/decodewasmjs";
import { planesOf } from "./planes.ts";
import type { PixelShape } from "./sources/source.ts";

/** Larger images take longer than setting up sharp, which decodes in threads of its own. */
const maxPixels = 64 * 64;

/** More bytes than pixels can fill are something else. */
const maxBytes = 4096 + 6 * maxPixels;

/** Each image that is refused costs 192 bytes, which C++ exceptions never give back; so many are 192 KB. */
const maxRefusals = 1000;

/** Red, green and blue, or what they are made from. */
const components = 3;

/** Compiled before the first image comes, so that decoding waits for nothing. */
let decoder = await createDecoder();
let refusals = 0;

/**
 * Decodes a plain JPEG of this very shape to [C, H, W], red first: byte for byte what sharp makes of it, by the same library (libjpeg-turbo,
 * compiled to WebAssembly). Undefined for whatever is not plainly that, or draws a warning: another size, more than
 * 64 x 64 pixels, progressive, grey, CMYK, rotated by EXIF, with a colour profile, damaged, no JPEG. sharp then decodes or refuses it.
 */
export function decodeSmallJpeg(bytes: Uint8Array, shape: PixelShape): Uint8Array | undefined {
  const { height, width } = shape;
  if (height * width > maxPixels || bytes.length > maxBytes || !isPlainJpeg(bytes, shape)) return undefined;
  try {
    decoder.getEncodedBuffer(bytes.length).set(bytes);
    decoder.decode();
    // Copied from memory that the next image overwrites.
    return planesOf(decoder.getDecodedBuffer(), components);
  } catch {
    noteRefusal();
    return undefined;
  }
}

/** Replaces the decoder, and with it its memory, from time to time. Where there is no memory for another one, the old one goes on. */
function noteRefusal(): void {
  refusals++;
  if (refusals % maxRefusals !== 0) return;
  createDecoder().then(
    (fresh) => {
      decoder = fresh;
    },
    () => undefined,
  );
}

async function createDecoder() {
  const { JPEGDecoder } = await createCodec();
  return new JPEGDecoder();
}

/** Names of JPEG's markers (ITU-T T.81, table B.1). */
const marker = { baseline: 0xc0, extended: 0xc1, tables: [0xc4, 0xdb, 0xdd], scan: 0xda, comment: 0xfe, jfif: 0xe0 };

/** Whether nothing stands before the only scan of a sequential JPEG that says that its pixels are to be turned or recoloured. */
function isPlainJpeg(bytes: Uint8Array, { height, width }: PixelShape): boolean {
  if (bytes[0] !== 0xff || bytes[1] !== 0xd8) return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let isRight = false;
  for (let at = 2; at + 9 < bytes.length; at += 2 + view.getUint16(at + 2)) {
    if (bytes[at] !== 0xff) return false;
    const kind = bytes[at + 1] ?? 0;
    if (kind === marker.scan) return isRight && bytes[at + 4] === components;
    if (kind === marker.baseline || kind === marker.extended) {
      const isOfShape = view.getUint16(at + 5) === height && view.getUint16(at + 7) === width;
      isRight = isOfShape && bytes[at + 4] === 8 && bytes[at + 9] === components;
    } else if (!marker.tables.includes(kind) && kind !== marker.comment && kind !== marker.jfif) return false;
  }
  return false;
}

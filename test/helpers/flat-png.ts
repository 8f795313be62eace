/** PNG files of one colour, which are some thousand times smaller than their pixels. */
import { constants, crc32, deflateRawSync } from "node:zlib";

export interface FlatPng {
  readonly width: number;
  readonly height: number;
  /** Adam7, which is decoded as a whole. Default false. */
  readonly interlaced?: boolean;
}

const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
/** First column and row of each pass of Adam7, and the steps to the next (PNG, section 8.2). */
const adam7 = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
] as const;
const wholeImage = [[0, 0, 1, 1]] as const;

/** A black image. It is never in memory as a whole, so that a test can measure what it takes to decode it. */
export function flatPng({ width, height, interlaced = false }: FlatPng): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  // Eight bits of red, green and blue each.
  header.set([8, 2], 8);
  header[12] = interlaced ? 1 : 0;
  let rawBytes = 0;
  for (const [left, top, across, down] of interlaced ? adam7 : wholeImage) {
    const columns = Math.ceil((width - left) / across);
    // Each row begins with its filter.
    rawBytes += Math.ceil((height - top) / down) * (1 + 3 * columns);
  }
  const chunks = [chunk("IHDR", header), chunk("IDAT", zlibOfZeros(rawBytes)), chunk("IEND", Buffer.alloc(0))];
  return Buffer.concat([signature, ...chunks]);
}

const blockBytes = 2 ** 20;
/** Ends at a byte and refers to nothing before it, so that it can be repeated. */
const block = deflateRawSync(Buffer.alloc(blockBytes), { finishFlush: constants.Z_FULL_FLUSH });

function zlibOfZeros(count: number): Buffer {
  const blocks = Array.from({ length: Math.floor(count / blockBytes) }, () => block);
  // Adler-32 of zeros: the sum of the bytes stays 1, and is added up once a byte.
  const checksum = Buffer.alloc(4);
  checksum.writeUInt16BE(count % 65_521, 0);
  checksum.writeUInt16BE(1, 2);
  return Buffer.concat([
    Buffer.from([0x78, 0x9c]),
    ...blocks,
    deflateRawSync(Buffer.alloc(count % blockBytes)),
    checksum,
  ]);
}

function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
  const framed = Buffer.alloc(body.length + 8);
  framed.writeUInt32BE(data.length, 0);
  body.copy(framed, 4);
  framed.writeUInt32BE(crc32(body), body.length + 4);
  return framed;
}

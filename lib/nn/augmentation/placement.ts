/** Mirroring and moving images. */
import type { Random } from "../random.ts";

/** Of images [C, H, W]. */
export interface ImageShape {
  readonly channels: number;
  readonly height: number;
  readonly width: number;
}

/** One of the images that lie one after the other in an array. */
export interface ImageAt {
  readonly pixels: Uint8Array;
  /** Of its first element. */
  readonly offset: number;
}

/** How one image is changed. */
export interface Placement {
  readonly flip: boolean;
  /** The image moves by this many pixels to the right (negative: left) and down (negative: up). */
  readonly right: number;
  readonly down: number;
}

/**
 * Mirrors a random half of the images in even epochs and the others in odd ones, so that two epochs show each image both ways
 * round, where coin tosses would repeat half of them (Jordan 2024, arXiv 2404.00498).
 */
export function alternatingFlip(random: Random, images: number): (image: number, epoch: number) => boolean {
  const halves = Uint8Array.from({ length: images }, () => random.integer(2));
  return (image, epoch) => halves[image] === epoch % 2;
}

/**
 * A function that copies an image with a change applied. Pixels that move in from outside are reflected at the border without
 * repeating it (…2 1 | 0 1 2…).
 */
export function createPlacer({ channels, height, width }: ImageShape) {
  const size = channels * height * width;
  const columns = new Uint32Array(width);
  return (source: ImageAt, target: ImageAt, { flip, right, down }: Placement): void => {
    const [from, to] = [source.pixels, target.pixels];
    if (!flip && right === 0 && down === 0) {
      to.set(from.subarray(source.offset, source.offset + size), target.offset);
      return;
    }
    for (let x = 0; x < width; x++) {
      const column = reflect(x - right, width);
      columns[x] = flip ? width - 1 - column : column;
    }
    for (let y = 0; y < height; y++) {
      const row = reflect(y - down, height);
      for (let channel = 0; channel < channels; channel++) {
        const read = source.offset + (channel * height + row) * width;
        const write = target.offset + (channel * height + y) * width;
        // Faster than copying runs by calls, for rows as short as these.
        for (let x = 0; x < width; x++) to[write + x] = from[read + (columns[x] ?? 0)] ?? 0;
      }
    }
  };
}

/** The position inside [0, length) that a position outside is a mirror image of, at any distance. */
function reflect(position: number, length: number): number {
  const period = Math.max(1, 2 * (length - 1));
  const folded = ((position % period) + period) % period;
  return folded < length ? folded : period - folded;
}

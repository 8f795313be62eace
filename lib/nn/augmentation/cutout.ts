/** Cutout: hiding a square of an image, so that no single part of what it shows is relied on (DeVries and Taylor 2017, arXiv 1708.04552). */
import type { ImageAt, ImageShape } from "./placement.ts";

export interface CutoutOptions {
  readonly shape: ImageShape;
  /** Side of the square in pixels. */
  readonly side: number;
  /** Its centre: anywhere in the image, so that the border may clip the square. */
  readonly row: number;
  readonly column: number;
  /** What it is filled with, a value for each channel. */
  readonly fill: Uint8Array;
}

/** Fills the square, in place. */
export function cutOut({ pixels, offset }: ImageAt, { shape, side, row, column, fill }: CutoutOptions): void {
  const { channels, height, width } = shape;
  const [top, left] = [row - (side >> 1), column - (side >> 1)];
  const [first, last] = [Math.max(0, top), Math.min(height, top + side)];
  const [start, end] = [Math.max(0, left), Math.min(width, left + side)];
  for (let channel = 0; channel < channels; channel++) {
    for (let y = first; y < last; y++) {
      const line = offset + (channel * height + y) * width;
      pixels.fill(fill[channel] ?? 0, line + start, line + end);
    }
  }
}

/** Random changes to training images that leave what they show alone. */
import type { AugmentationConfig } from "./configuration.ts";
import type { Random } from "./random.ts";

export interface ImageShape {
  readonly channels: number;
  readonly height: number;
  readonly width: number;
}

/** How one image is changed. */
export interface Placement {
  readonly flip: boolean;
  /** The image moves by this many pixels to the right (negative: left) and down (negative: up). */
  readonly right: number;
  readonly down: number;
}

/** Draws one image's change. The same draws are made whatever the configuration, so that options do not shift the sequence. */
export function drawPlacement(random: Random, { horizontalFlip, translation }: AugmentationConfig): Placement {
  const flip = random.integer(2) === 1;
  const right = random.integer(2 * translation + 1) - translation;
  const down = random.integer(2 * translation + 1) - translation;
  return { flip: flip && horizontalFlip !== "none", right, down };
}

/**
 * Copies a uint8 image [C, H, W] with a change applied. Pixels that move in from outside are reflected at the border without
 * repeating it (…2 1 | 0 1 2…).
 */
export function placeImage(
  source: Uint8Array,
  target: Uint8Array,
  options: { shape: ImageShape; placement: Placement },
): void {
  const { channels, height, width } = options.shape;
  const { flip, right, down } = options.placement;
  if (!flip && right === 0 && down === 0) {
    target.set(source);
    return;
  }
  const columns = Uint16Array.from({ length: width }, (_, x) => {
    const column = reflect(x - right, width);
    return flip ? width - 1 - column : column;
  });
  for (let channel = 0; channel < channels; channel++) {
    for (let y = 0; y < height; y++) {
      const from = (channel * height + reflect(y - down, height)) * width;
      const to = (channel * height + y) * width;
      for (let x = 0; x < width; x++) target[to + x] = source[from + (columns[x] ?? 0)] ?? 0;
    }
  }
}

/** The position inside [0, length) that a position outside is a mirror image of, at any distance. */
function reflect(position: number, length: number): number {
  const period = Math.max(1, 2 * (length - 1));
  const folded = ((position % period) + period) % period;
  return folded < length ? folded : period - folded;
}

import type { Random } from "../random.ts";
import { createBackground, rotationOf } from "./backgrounds.ts";
import type { Drawing } from "./drawings.ts";

/** How many pixels of a drawing one pixel of the image covers when the drawing fills it: two samples a pixel and axis. */
export const drawingOversampling = 2;

/** How far images differ from the drawing that they show; each range is drawn from evenly. */
export interface Variation {
  /** Size of the drawing, as a share of the image's. */
  readonly scale: readonly [number, number];
  /** Largest ratio of the drawing's width to its height, or of its height to its width. */
  readonly stretch: number;
  /** Largest tangent of half the angle by which it is turned. */
  readonly tilt: number;
  /** Largest shift of its upper edge against its lower, as a share of its size. */
  readonly shear: number;
  /** Largest distance from where it just fits, as a share of the image's size. */
  readonly offset: number;
  /** Largest tangent of half the angle by which hues are turned. */
  readonly hue: number;
  /** Share of the images whose hue is turned by anything up to 143 degrees instead. */
  readonly anyHue: number;
  readonly saturation: readonly [number, number];
  readonly gain: readonly [number, number];
  /** Largest change of brightness, of 255. */
  readonly brightness: number;
  /** Largest strength of the noise, of 255. */
  readonly noise: number;
}

/** Images to learn from differ widely, because there are few drawings. */
export const trainVariation: Variation = {
  scale: [0.8, 1.1],
  stretch: 1.15,
  tilt: 0.12,
  shear: 0.1,
  offset: 0.05,
  hue: 0.12,
  anyHue: 0.1,
  saturation: [0.3, 1.25],
  gain: [0.75, 1.15],
  brightness: 18,
  noise: 5,
};

/** Images to be measured on differ little: what makes them hard is that the art is new. */
export const testVariation: Variation = {
  scale: [0.85, 1.05],
  stretch: 1.05,
  tilt: 0.06,
  shear: 0.05,
  offset: 0.03,
  hue: 0.05,
  anyHue: 0,
  saturation: [0.9, 1.1],
  gain: [0.9, 1.05],
  brightness: 8,
  noise: 5,
};

/** What to put a drawing on and how. */
export interface CompositionOptions {
  /** Width and height of the image in pixels; the drawing should have `drawingOversampling` times as many. */
  readonly size: number;
  readonly variation: Variation;
  readonly random: Random;
}

/**
 * Puts a drawing before a background: both varied at random, then the whole made noisy.
 *
 * @returns 3 x size x size values, channel by channel.
 */
export function composePictogram(drawing: Drawing, { size, variation, random }: CompositionOptions): Uint8Array {
  const background = createBackground(random);
  const sampleAt = createSampler(drawing, createPlacement(random, variation, { from: drawing.size, to: size }));
  const recolour = createRecolouring(random, variation);
  const noise = createNoise(random, variation.noise);
  const plane = size * size;
  const image = new Uint8ClampedArray(3 * plane);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      const sample = sampleAt(column, row);
      recolour(sample);
      const behind = background((column + 0.5) / size, (row + 0.5) / size);
      const grey = noise.grey();
      for (let channel = 0; channel < 3; channel++) {
        const colour = (sample[channel] ?? 0) + (1 - (sample[3] ?? 0)) * (behind[channel] ?? 0);
        image[channel * plane + row * size + column] = colour + grey + noise.colour();
      }
    }
  }
  return new Uint8Array(image.buffer);
}

/** The affine map from image coordinates to the drawing's: [xx, xy, x0, yx, yy, y0], in pixels. */
type Placement = readonly [number, number, number, number, number, number];

function createPlacement(
  random: Random,
  variation: Variation,
  { from, to }: { readonly from: number; readonly to: number },
): Placement {
  const scale = random.between(...variation.scale);
  const stretch = random.between(1 / variation.stretch, variation.stretch);
  const [cosine, sine] = rotationOf(random.between(-variation.tilt, variation.tilt));
  const mirror = random.chance(0.5) ? -1 : 1;
  const shear = random.between(-variation.shear, variation.shear);
  const slack = variation.offset + Math.max(0, 1 - scale) / 2;
  const centreX = to * (0.5 + random.between(-slack, slack));
  const centreY = to * (0.5 + random.between(-slack, slack));
  const across = (mirror * from) / (to * scale * stretch);
  const down = (from * stretch) / (to * scale);
  const [yx, yy] = [-sine * down, cosine * down];
  const [xx, xy] = [cosine * across + shear * yx, sine * across + shear * yy];
  const middle = from / 2;
  return [xx, xy, middle - xx * centreX - xy * centreY, yx, yy, middle - yx * centreX - yy * centreY];
}

/**
 * Samples a drawing: the mean of four points within a pixel of the image, as red, green and blue times alpha (0..255) and
 * alpha (0..1). The array is used again at the next call.
 */
function createSampler(drawing: Drawing, place: Placement): (column: number, row: number) => Float64Array {
  const sample = new Float64Array(4);
  return (column, row) => {
    sample.fill(0);
    for (let part = 0; part < 4; part++) {
      const x = column + (part % 2 === 0 ? 0.25 : 0.75);
      const y = row + (part < 2 ? 0.25 : 0.75);
      const across = place[0] * x + place[1] * y + place[2] - 0.5;
      const down = place[3] * x + place[4] * y + place[5] - 0.5;
      addInterpolated(drawing, across, down, sample);
    }
    for (let channel = 0; channel < 3; channel++) sample[channel] = (sample[channel] ?? 0) / 4;
    sample[3] = (sample[3] ?? 0) / (4 * 255);
    return sample;
  };
}

/** Adds the drawing's values at a point between four of its pixels; beyond its borders all is transparent. */
function addInterpolated(drawing: Drawing, x: number, y: number, result: Float64Array): void {
  const { size, rgba } = drawing;
  const left = Math.floor(x);
  const top = Math.floor(y);
  if (left < -1 || top < -1 || left >= size || top >= size) return;
  for (let corner = 0; corner < 4; corner++) {
    const column = left + (corner & 1);
    const row = top + (corner >> 1);
    if (column < 0 || row < 0 || column >= size || row >= size) continue;
    const weight = (1 - Math.abs(x - column)) * (1 - Math.abs(y - row));
    const at = (row * size + column) * 4;
    result[0] = (result[0] ?? 0) + weight * (rgba[at] ?? 0);
    result[1] = (result[1] ?? 0) + weight * (rgba[at + 1] ?? 0);
    result[2] = (result[2] ?? 0) + weight * (rgba[at + 2] ?? 0);
    result[3] = (result[3] ?? 0) + weight * (rgba[at + 3] ?? 0);
  }
}

/** Tangent of half of 143 degrees: a hue may become nearly any other. */
const anyHue = 3;

/**
 * A change of hue, saturation, brightness and contrast of the drawing alone. The hue turns around the grey axis
 * (Rodrigues' rotation about (1, 1, 1)), a saturation below 1 moves colours towards grey.
 */
function createRecolouring(random: Random, variation: Variation): (sample: Float64Array) => void {
  const hue = random.chance(variation.anyHue) ? anyHue : variation.hue;
  const [cosine, sine] = rotationOf(random.between(-hue, hue));
  const saturation = random.between(...variation.saturation);
  const gain = random.between(...variation.gain);
  const offset = random.between(-variation.brightness, variation.brightness);
  const even = (1 - saturation * cosine) / 3;
  const turn = (saturation * sine) / Math.sqrt(3);
  const own = saturation * cosine + even;
  const [before, after] = [even - turn, even + turn];
  return (sample) => {
    const red = sample[0] ?? 0;
    const green = sample[1] ?? 0;
    const blue = sample[2] ?? 0;
    const shift = offset * (sample[3] ?? 0);
    sample[0] = (own * red + before * green + after * blue) * gain + shift;
    sample[1] = (after * red + own * green + before * blue) * gain + shift;
    sample[2] = (before * red + after * green + own * blue) * gain + shift;
  };
}

/** Noise for each pixel, the same for all channels, and for each channel: close to normal (Irwin and Hall, n = 3). */
function createNoise(random: Random, most: number): { grey(): number; colour(): number } {
  const strength = random.between(0, most);
  const bell = (): number => random.unit() + random.unit() + random.unit() - 1.5;
  return { grey: () => bell() * strength, colour: () => bell() * strength };
}

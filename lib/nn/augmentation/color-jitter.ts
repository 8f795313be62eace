/** Colour jitter: other light and another camera, as torchvision's ColorJitter has it, in a fixed order. */
import type { ImageAt, ImageShape } from "./placement.ts";

/** Factors; 1 leaves an image as it is. */
export interface Colors {
  readonly brightness: number;
  /** Of the distances from the image's mean luma. */
  readonly contrast: number;
  /** Of the distances from each pixel's luma. Without effect unless there are three channels: red, green, blue. */
  readonly saturation: number;
}

/** Share of red, green and blue in the luma of ITU-R BT.601. */
const luma = [0.299, 0.587, 0.114] as const;

/** A function that changes brightness, contrast and saturation of an image in place. Values are clamped to [0, 255]. */
export function createColorJitter({ channels, height, width }: ImageShape) {
  const plane = height * width;
  const weights = channels === luma.length ? luma : Array.from({ length: channels }, () => 1 / channels);
  // Brightness and contrast change every pixel by itself, so they are looked up.
  const lookUp = new Uint8ClampedArray(256);
  return ({ pixels, offset }: ImageAt, { brightness, contrast, saturation }: Colors): void => {
    for (let value = 0; value < 256; value++) lookUp[value] = value * brightness;
    let mean = 0;
    for (let channel = 0; channel < channels; channel++) {
      let sum = 0;
      const start = offset + channel * plane;
      for (let index = start; index < start + plane; index++) sum += lookUp[pixels[index] ?? 0] ?? 0;
      mean += ((weights[channel] ?? 0) * sum) / plane;
    }
    for (let value = 0; value < 256; value++) lookUp[value] = mean + contrast * ((lookUp[value] ?? 0) - mean);
    const end = offset + channels * plane;
    for (let index = offset; index < end; index++) pixels[index] = lookUp[pixels[index] ?? 0] ?? 0;
    if (channels === luma.length) saturate({ pixels, offset }, plane, saturation);
  };
}

/** In steps of 1/256, because whole numbers are fast. */
function saturate({ pixels, offset }: ImageAt, plane: number, saturation: number): void {
  const [red, green, blue] = luma.map((weight) => Math.round(weight * 256)) as [number, number, number];
  const factor = Math.round(saturation * 256);
  for (let index = offset; index < offset + plane; index++) {
    const r = pixels[index] ?? 0;
    const g = pixels[index + plane] ?? 0;
    const b = pixels[index + 2 * plane] ?? 0;
    const gray = (red * r + green * g + blue * b + 128) >> 8;
    pixels[index] = byte(gray + ((factor * (r - gray) + 128) >> 8));
    pixels[index + plane] = byte(gray + ((factor * (g - gray) + 128) >> 8));
    pixels[index + 2 * plane] = byte(gray + ((factor * (b - gray) + 128) >> 8));
  }
}

function byte(value: number): number {
  return Math.max(0, Math.min(255, value));
}

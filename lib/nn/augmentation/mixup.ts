/** Mixup: training on blends of two images and of their targets (Zhang et al. 2018, arXiv 1710.09412). */
import type { Random } from "../random.ts";

export interface MixupOptions {
  /** Images in the batch. */
  readonly images: number;
  readonly random: Random;
  /** Both parameters of the beta distribution. */
  readonly alpha: number;
}

/**
 * Blends each image of a batch with the one as far from the other end, in place: the batch's order is random already. Every
 * image has its own share, not one for all as in the authors' code: the same cost for gradients of less variance. The middle
 * one of an odd number stays.
 */
export function mixUp(
  { pixels, targets }: { pixels: Uint8Array; targets: Float32Array },
  { images, random, alpha }: MixupOptions,
): void {
  const [size, classes] = [pixels.length / images, targets.length / images];
  for (let image = 0; image < images >> 1; image++) {
    const other = images - 1 - image;
    const shares = { first: sampleBeta(random, alpha), second: sampleBeta(random, alpha) };
    blendPair(pixels, { first: image * size, second: other * size, length: size, shares, rounding: 0.5 });
    blendPair(targets, { first: image * classes, second: other * classes, length: classes, shares, rounding: 0 });
  }
}

export interface BlendOptions {
  /** Offsets of the two. */
  readonly first: number;
  readonly second: number;
  readonly length: number;
  /** What each keeps of itself, in [0, 1]; the rest is the other's. */
  readonly shares: { readonly first: number; readonly second: number };
  /** Added to every value: 0.5 rounds in an array of whole numbers, which drops fractions. */
  readonly rounding: number;
}

/** Blends two parts of an array with each other, in place. */
export function blendPair(values: Uint8Array | Float32Array, options: BlendOptions): void {
  const { first, second, length, shares, rounding } = options;
  for (let index = 0; index < length; index++) {
    const a = values[first + index] ?? 0;
    const b = values[second + index] ?? 0;
    values[first + index] = b + shares.first * (a - b) + rounding;
    values[second + index] = a + shares.second * (b - a) + rounding;
  }
}

/** A sample of the beta distribution with both parameters `alpha` > 0: a gamma variate's share of the sum of two. */
export function sampleBeta(random: Random, alpha: number): number {
  return 1 / (1 + Math.exp(logGamma(random, alpha) - logGamma(random, alpha)));
}

/**
 * The logarithm of a sample of the gamma distribution, by Marsaglia and Tsang 2000 (doi 10.1145/358407.358414). Of the logarithm, because
 * samples for a small `shape` are too small for a number.
 */
function logGamma(random: Random, shape: number): number {
  if (shape < 1) return logGamma(random, shape + 1) + Math.log(1 - random.uniform()) / shape;
  const d = shape - 1 / 3;
  for (;;) {
    const x = random.normal();
    const v = (1 + x / Math.sqrt(9 * d)) ** 3;
    if (v > 0 && Math.log(1 - random.uniform()) < x ** 2 / 2 + d * (1 - v + Math.log(v))) return Math.log(d * v);
  }
}

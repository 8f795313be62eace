/** Random arrays for tests, from a seed that a failure shows. */
import { createRandom, shuffle } from "../../../lib/nn/random.ts";

/** Standard normal numbers. */
export function normalArray(seed: number, length: number): Float32Array {
  const random = createRandom(seed);
  return Float32Array.from({ length }, () => random.normal());
}

/** Distinct numbers at least 0.1 apart, none within 0.05 of zero, in random order: no ties, and no kink within reach of a small change. */
export function distinctArray(seed: number, length: number): Float32Array {
  const order = Uint32Array.from({ length }, (_, index) => index);
  shuffle(createRandom(seed), order);
  return Float32Array.from(order, (rank) => (rank - Math.floor(length / 2) + 0.5) / 10);
}

/** Random bytes. */
export function byteArray(seed: number, length: number): Uint8Array {
  const random = createRandom(seed);
  return Uint8Array.from({ length }, () => random.integer(256));
}

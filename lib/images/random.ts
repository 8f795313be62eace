import { createHash } from "node:crypto";

/** A stream of pseudo-random numbers. Not for secrets. */
export interface Random {
  /** A number in [0, 1) with 32 random bits. */
  unit(): number;
  /** A number in [low, high). */
  between(low: number, high: number): number;
  /** A whole number in [0, limit). */
  integer(limit: number): number;
  /** True with this probability. */
  chance(probability: number): boolean;
}

/**
 * A generator named by a key: the same key gives the same numbers everywhere, different keys give unrelated ones.
 *
 * Each thing drawn at random has a generator of its own, so what it becomes depends on neither the order nor the
 * concurrency in which things are made. The generator is sfc32 (Chris Doty-Humphrey, PractRand); its state is the
 * SHA-256 digest of the key. Integer arithmetic alone, so the sequence is the same on every machine.
 *
 * @example randomFor(seed, "train", "cat", 17)
 */
export function randomFor(...key: readonly (string | number | bigint)[]): Random {
  const digest = createHash("sha256")
    .update(JSON.stringify(key.map(String)))
    .digest();
  let a = digest.readInt32LE(0);
  let b = digest.readInt32LE(4);
  let c = digest.readInt32LE(8);
  let counter = 1;
  const unit = (): number => {
    const sum = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return (sum >>> 0) / 2 ** 32;
  };
  return {
    unit,
    between: (low, high) => low + unit() * (high - low),
    integer: (limit) => Math.floor(unit() * limit),
    chance: (probability) => unit() < probability,
  };
}

/** A copy in random order (Fisher-Yates). */
export function shuffled<T>(random: Random, items: readonly T[]): T[] {
  const result = [...items];
  for (let last = result.length - 1; last > 0; last--) {
    const other = random.integer(last + 1);
    [result[last], result[other]] = [result[other] as T, result[last] as T];
  }
  return result;
}

/**
 * The one source of randomness in training: xoshiro128** by Blackman and Vigna (https://prng.di.unimi.it/xoshiro128starstar.c),
 * seeded by position. What is drawn for a step follows from the seed and the step's number alone, so a resumed training draws
 * what an uninterrupted one would have drawn, and a checkpoint keeps no state of a generator. Not for secrets.
 */

export interface Random {
  /** A whole number in [0, 2^32). */
  uint32(): number;
  /** A number in [0, 1) with 32 random bits. */
  uniform(): number;
  /** A whole number in [0, limit), without bias to speak of for limits far below 2^32. */
  integer(limit: number): number;
  /** A sample of the standard normal distribution (Box-Muller). */
  normal(): number;
}

/**
 * A generator for a seed and a position, such as the purpose and the step; all are taken modulo 2^32. Different seeds and
 * different positions give unrelated sequences: the position is hashed into all 128 bits of the state, not into 32 of them,
 * of which a long training would soon meet two alike.
 */
export function createRandom(seed: number, ...stream: readonly number[]): Random {
  const word = (index: number): number =>
    stream.reduce((state, number) => mix((state ^ number) + golden), mix(seed + index * golden));
  return xoshiro128([word(1), word(2), word(3), word(4)]);
}

/** 2^32 divided by the golden ratio, the increment of splitmix32. */
const golden = 0x9e3779b9;

/** The mixing function of splitmix32: one to one on 32 bits. */
function mix(word: number): number {
  let mixed = Math.imul(word ^ (word >>> 16), 0x21f0aaad);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
  return (mixed ^ (mixed >>> 15)) >>> 0;
}

/** The generator itself, from its state: four words, not all zero. */
export function xoshiro128(state: readonly [number, number, number, number]): Random {
  let [a, b, c, d] = state;
  const uint32 = (): number => {
    const product = Math.imul(b, 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0;
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = (d << 11) | (d >>> 21);
    return result;
  };
  const uniform = (): number => uint32() / 2 ** 32;
  return {
    uint32,
    uniform,
    integer: (limit) => Math.floor(uniform() * limit),
    normal: () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
  };
}

/** What random numbers are drawn for: the first part of a position, so that no option shifts the sequence of another. */
export const streams = {
  order: 0,
  flipHalves: 1,
  flip: 2,
  translation: 3,
  colorJitter: 4,
  cutout: 5,
  mixup: 6,
  masks: 7,
} as const;

/** Puts the elements into a random order, in place (Fisher-Yates). */
export function shuffle(random: Random, values: Uint32Array): void {
  for (let last = values.length - 1; last > 0; last--) {
    const other = random.integer(last + 1);
    const kept = values[last] ?? 0;
    values[last] = values[other] ?? 0;
    values[other] = kept;
  }
}

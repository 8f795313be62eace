/** Seeds for the initialisers of a network's layers, so that no two layers start alike. */
import { createRandom } from "../random.ts";

/** A function whose every call gives another seed, the same sequence for the same start. */
export function createSeeds(seed: number): () => number {
  const random = createRandom(seed);
  // The Layers API takes a seed of 0 for none.
  return () => 1 + random.integer(2 ** 31 - 2);
}

/** The generator and the dropout masks. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fillMask } from "../../../lib/nn/batches.ts";
import { createRandom, shuffle, xoshiro128 } from "../../../lib/nn/random.ts";

test("the generator gives the sequence of the published xoshiro128**", () => {
  // Worked out from the reference code: with the state 1, 2, 3, 4 the first results are rotl(2 * 5, 7) * 9 and so on.
  const random = xoshiro128([1, 2, 3, 4]);
  assert.deepEqual([random.uint32(), random.uint32(), random.uint32()], [11520, 0, 5927040]);
});

test("generators of other seeds and other positions have nothing in common, those of the same everything", () => {
  const start = (seed: number, ...stream: number[]): string => {
    const random = createRandom(seed, ...stream);
    return [random.uint32(), random.uint32(), random.uint32(), random.uint32()].join();
  };
  const positions = [[], [0], [1], [0, 0], [0, 1], [1, 0], [2 ** 32 - 1], [0, 0, 0]];
  const starts = [0, 1, 2 ** 32 - 1].flatMap((seed) => positions.map((stream) => start(seed, ...stream)));
  assert.equal(new Set(starts).size, starts.length);
  assert.equal(start(7, 3, 4), start(7, 3, 4));
});

test("the first numbers of successive positions are as random as those of one sequence", () => {
  const first = Array.from({ length: 100_000 }, (_, step) => createRandom(1, 5, step).uniform());
  const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
  assert.ok(Math.abs(mean(first) - 1 / 2) < 0.005);
  assert.ok(Math.abs(mean(first.map((value) => value ** 2)) - 1 / 3) < 0.005);
  assert.ok(Math.abs(mean(first.slice(1).map((value, index) => value * (first[index] ?? 0))) - 1 / 4) < 0.005);
});

test("uniform, integer and normal numbers have the moments they should have", () => {
  const random = createRandom(1);
  const count = 100_000;
  const mean = (draw: () => number): number =>
    Array.from({ length: count }, draw).reduce((sum, value) => sum + value, 0) / count;
  assert.ok(Math.abs(mean(() => random.uniform()) - 0.5) < 0.005);
  assert.ok(Math.abs(mean(() => random.integer(5)) - 2) < 0.02);
  assert.ok(Math.abs(mean(() => random.normal())) < 0.02);
  assert.ok(Math.abs(mean(() => random.normal() ** 2) - 1) < 0.03);
});

test("shuffling keeps every element and depends on the seed alone", () => {
  const shuffled = (seed: number): Uint32Array => {
    const values = Uint32Array.from({ length: 50 }, (_, index) => index);
    shuffle(createRandom(seed), values);
    return values;
  };
  assert.deepEqual(shuffled(1), shuffled(1));
  assert.notDeepEqual(shuffled(1), shuffled(2));
  assert.deepEqual(
    [...shuffled(1)].sort((a, b) => a - b),
    Array.from({ length: 50 }, (_, index) => index),
  );
});

for (const rate of [0.01, 0.3, 0.5, 0.9]) {
  test(`a dropout mask of ${rate} drops its share and scales the rest so that the mean stays`, () => {
    const mask = new Float32Array(100_001);
    fillMask(createRandom(9), { name: "mask", shape: [mask.length], rate }, mask);
    const [kept = 0] = mask.filter((value) => value !== 0);
    assert.deepEqual(new Set(mask), new Set([0, kept]));
    assert.ok(Math.abs(kept * (1 - rate) - 1) < 1e-4, `kept values become ${kept}`);
    const mean = mask.reduce((sum, value) => sum + value, 0) / mask.length;
    assert.ok(Math.abs(mean - 1) < 4 * Math.sqrt(rate / (1 - rate) / mask.length), `mean ${mean}`);
  });
}

test("neighbours in a dropout mask are dropped independently", () => {
  const mask = new Float32Array(100_000);
  fillMask(createRandom(11), { name: "mask", shape: [mask.length], rate: 0.5 }, mask);
  const both = mask.filter((value, index) => value === 0 && mask[index + 1] === 0).length / mask.length;
  assert.ok(Math.abs(both - 0.25) < 0.01, `${both}`);
});

/** The generator, the augmentation and the dropout masks. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { drawPlacement, type Placement, placeImage } from "../../../lib/nn/augmentation.ts";
import { fillMask } from "../../../lib/nn/batches.ts";
import { createRandom, randomFromState, shuffle } from "../../../lib/nn/random.ts";

test("the generator gives the sequence of the published xoshiro128**", () => {
  // Worked out from the reference code: with the state 1, 2, 3, 4 the first results are rotl(2 * 5, 7) * 9 and so on.
  const random = randomFromState([1, 2, 3, 4]);
  assert.deepEqual([random.uint32(), random.uint32(), random.uint32()], [11520, 0, 5927040]);
});

test("a generator goes on from a saved state", () => {
  const random = createRandom(7);
  random.normal();
  const copy = randomFromState(random.state());
  assert.deepEqual(
    [copy.uint32(), copy.normal(), copy.integer(10)],
    [random.uint32(), random.normal(), random.integer(10)],
  );
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

/** Two channels of 2x3. */
const image = Uint8Array.of(1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16);

function placed(placement: Partial<Placement>): number[] {
  const target = new Uint8Array(12);
  const options = {
    shape: { channels: 2, height: 2, width: 3 },
    placement: { flip: false, right: 0, down: 0, ...placement },
  };
  placeImage(image, target, options);
  return [...target];
}

test("a flip mirrors each row of each channel", () => {
  assert.deepEqual(placed({ flip: true }), [3, 2, 1, 6, 5, 4, 13, 12, 11, 16, 15, 14]);
});

test("a translation reflects at the border without repeating it", () => {
  assert.deepEqual(placed({ right: 1 }), [2, 1, 2, 5, 4, 5, 12, 11, 12, 15, 14, 15]);
  assert.deepEqual(placed({ right: -2 }), [3, 2, 1, 6, 5, 4, 13, 12, 11, 16, 15, 14]);
  assert.deepEqual(placed({ down: 1 }), [4, 5, 6, 1, 2, 3, 14, 15, 16, 11, 12, 13]);
});

test("an image that stays is copied as it is", () => {
  assert.deepEqual(placed({}), [...image]);
});

test("placements cover the whole range, and only flip where that is asked for", () => {
  const random = createRandom(5);
  const draws = Array.from({ length: 500 }, () =>
    drawPlacement(random, { horizontalFlip: "random", translation: 2, cutout: 0, colorJitter: 0, mixup: 0 }),
  );
  assert.deepEqual(new Set(draws.map(({ right }) => right)), new Set([-2, -1, 0, 1, 2]));
  const flips = draws.filter(({ flip }) => flip).length;
  assert.ok(flips > 200 && flips < 300, `${flips} of 500`);
  const still = drawPlacement(random, { horizontalFlip: "none", translation: 0, cutout: 0, colorJitter: 0, mixup: 0 });
  assert.deepEqual(
    { ...still, right: Math.abs(still.right), down: Math.abs(still.down) },
    { flip: false, right: 0, down: 0 },
  );
});

test("a dropout mask drops its share and scales the rest so that the mean stays", () => {
  const mask = new Float32Array(100_000);
  fillMask(createRandom(9), { name: "mask", shape: [mask.length], rate: 0.3 }, mask);
  assert.deepEqual(new Set(mask), new Set([0, Math.fround(1 / 0.7)]));
  const mean = mask.reduce((sum, value) => sum + value, 0) / mask.length;
  assert.ok(Math.abs(mean - 1) < 0.01, `${mean}`);
});

/** Each change to an image by itself. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createColorJitter } from "../../../lib/nn/augmentation/color-jitter.ts";
import { cutOut } from "../../../lib/nn/augmentation/cutout.ts";
import { blendPair, mixUp, sampleBeta } from "../../../lib/nn/augmentation/mixup.ts";
import { alternatingFlip, createPlacer, type Placement } from "../../../lib/nn/augmentation/placement.ts";
import { createRandom } from "../../../lib/nn/random.ts";

/** Two channels of 2x3. */
const image = Uint8Array.of(1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16);

/** The image after its placement; it lies behind others in both arrays, which must not matter to it nor it to them. */
function placed(placement: Partial<Placement>): number[] {
  const [source, target] = [new Uint8Array(30), new Uint8Array(20)];
  source.set(image, 10);
  const place = createPlacer({ channels: 2, height: 2, width: 3 });
  place(
    { pixels: source, offset: 10 },
    { pixels: target, offset: 3 },
    { flip: false, right: 0, down: 0, ...placement },
  );
  assert.deepEqual(
    [...target.slice(0, 3), ...target.slice(15)],
    Array.from({ length: 8 }, () => 0),
  );
  return [...target.slice(3, 15)];
}

test("a flip mirrors each row of each channel", () => {
  assert.deepEqual(placed({ flip: true }), [3, 2, 1, 6, 5, 4, 13, 12, 11, 16, 15, 14]);
});

test("a translation reflects at the border without repeating it", () => {
  assert.deepEqual(placed({ right: 1 }), [2, 1, 2, 5, 4, 5, 12, 11, 12, 15, 14, 15]);
  assert.deepEqual(placed({ right: -2 }), [3, 2, 1, 6, 5, 4, 13, 12, 11, 16, 15, 14]);
  assert.deepEqual(placed({ down: 1 }), [4, 5, 6, 1, 2, 3, 14, 15, 16, 11, 12, 13]);
});

test("a mirrored image moves the way that is asked for", () => {
  assert.deepEqual(placed({ flip: true, right: 1 }), [2, 3, 2, 5, 6, 5, 12, 13, 12, 15, 16, 15]);
});

test("an image that stays is copied as it is", () => {
  assert.deepEqual(placed({}), [...image]);
});

test("alternating flips mirror every image in one of two epochs, about half of them in each", () => {
  const isFlipped = alternatingFlip(createRandom(3), 1000);
  const flippedIn = (epoch: number): number[] =>
    Array.from({ length: 1000 }, (_, index) => index).filter((index) => isFlipped(index, epoch));
  const [first, second] = [flippedIn(0), flippedIn(1)];
  assert.deepEqual(
    [...first, ...second].sort((a, b) => a - b),
    Array.from({ length: 1000 }, (_, index) => index),
  );
  assert.ok(first.length > 430 && first.length < 570, `${first.length} of 1000`);
  assert.deepEqual(flippedIn(2), first);
  assert.deepEqual(flippedIn(7), second);
});

/** What cutout leaves of two images of ones, 2 channels of 4x5, as rows; the second is cut. */
function cut(options: { side: number; row: number; column: number }): string[] {
  const pixels = new Uint8Array(80).fill(1);
  cutOut(
    { pixels, offset: 40 },
    { shape: { channels: 2, height: 4, width: 5 }, fill: Uint8Array.of(7, 8), ...options },
  );
  assert.ok(pixels.subarray(0, 40).every((value) => value === 1));
  return Array.from({ length: 8 }, (_, row) => pixels.subarray(40 + 5 * row, 45 + 5 * row).join(""));
}

test("cutout fills a square with the channels' values", () => {
  const [first, second] = [
    ["11111", "11771", "11771", "11111"],
    ["11111", "11881", "11881", "11111"],
  ] as const;
  assert.deepEqual(cut({ side: 2, row: 2, column: 3 }), [...first, ...second]);
});

test("the border clips cutout's square", () => {
  assert.deepEqual(cut({ side: 3, row: 0, column: 0 }).slice(0, 4), ["77111", "77111", "11111", "11111"]);
  assert.deepEqual(cut({ side: 3, row: 3, column: 4 }).slice(0, 4), ["11111", "11111", "11177", "11177"]);
  assert.deepEqual(cut({ side: 4, row: 2, column: 2 }).slice(0, 4), ["77771", "77771", "77771", "77771"]);
});

const neutral = { brightness: 1, contrast: 1, saturation: 1 };

function jittered(pixels: readonly number[], changes: Partial<typeof neutral>, channels = 3): number[] {
  const target = Uint8Array.from([99, ...pixels]);
  const jitter = createColorJitter({ channels, height: 1, width: pixels.length / channels });
  jitter({ pixels: target, offset: 1 }, { ...neutral, ...changes });
  assert.equal(target[0], 99);
  return [...target.subarray(1)];
}

test("factors of one leave the colours alone", () => {
  const pixels = Array.from({ length: 3 * 256 }, (_, index) => (index * 97) % 256);
  assert.deepEqual(jittered(pixels, {}), pixels);
});

test("brightness multiplies and clamps", () => {
  assert.deepEqual(jittered([0, 100, 200, 10, 20, 30], { brightness: 1.5 }), [0, 150, 255, 15, 30, 45]);
});

test("contrast stretches around the mean luma", () => {
  // 0.299 * 50 + 0.587 * 100 + 0.114 * 150 = 90.75.
  assert.deepEqual(
    jittered([40, 60, 90, 110, 140, 160], { contrast: 0.5 }),
    [40, 60, 90, 110, 140, 160].map((value) => Math.round((value + 90.75) / 2)),
  );
  assert.deepEqual(jittered([0, 100], { contrast: 3 }, 1), [0, 200]);
});

test("saturation moves colours away from their luma, and leaves gray and other numbers of channels alone", () => {
  // Luma of (200, 100, 50): 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2.
  assert.deepEqual(jittered([200, 100, 50], { saturation: 0 }), [124, 124, 124]);
  assert.deepEqual(jittered([200, 100, 50], { saturation: 1.5 }), [238, 88, 13]);
  assert.deepEqual(jittered([200, 100, 50], { saturation: 4 }), [255, 28, 0]);
  assert.deepEqual(jittered([77, 77, 77], { saturation: 1.9 }), [77, 77, 77]);
  assert.deepEqual(jittered([200, 100], { saturation: 0 }, 2), [200, 100]);
});

test("blending rounds pixels and keeps what two sums of targets have together", () => {
  const pixels = Uint8Array.of(9, 0, 255, 101, 255, 0);
  blendPair(pixels, { first: 1, second: 3, length: 2, shares: { first: 0.75, second: 0.5 }, rounding: 0.5 });
  assert.deepEqual([...pixels], [9, 25, 255, 51, 255, 0]);
  const targets = Float32Array.of(1, 0, 0, 2);
  blendPair(targets, { first: 0, second: 2, length: 2, shares: { first: 0.75, second: 0.75 }, rounding: 0 });
  assert.deepEqual([...targets], [0.75, 0.5, 0.25, 1.5]);
});

test("mixup blends targets as it blends pixels, and leaves the middle image alone", () => {
  const pixels = Uint8Array.of(200, 200, 7, 7, 0, 0);
  const targets = Float32Array.of(1, 0, 1, 0, 0, 1);
  mixUp({ pixels, targets }, { images: 3, random: createRandom(4), alpha: 1 });
  const [first = 0, , , , last = 0] = pixels;
  assert.deepEqual([...pixels], [first, first, 7, 7, last, last]);
  assert.equal(Math.round(200 * (targets[0] ?? 0)), first);
  assert.equal(Math.round(200 * (targets[4] ?? 0)), last);
  assert.ok(first !== 200 && last !== 0 && first + last !== 200, `${first}, ${last}: each image has its own share`);
});

for (const alpha of [0.01, 0.2, 1, 3]) {
  test(`samples of the beta distribution of ${alpha} have its mean and variance`, () => {
    const random = createRandom(2);
    const samples = Array.from({ length: 50_000 }, () => sampleBeta(random, alpha));
    assert.ok(samples.every((value) => value >= 0 && value <= 1));
    const mean = samples.reduce((sum, value) => sum + value, 0) / samples.length;
    const variance = samples.reduce((sum, value) => sum + (value - mean) ** 2, 0) / samples.length;
    assert.ok(Math.abs(mean - 0.5) < 0.01, `mean ${mean}`);
    assert.ok(Math.abs(variance - 1 / (4 * (2 * alpha + 1))) < 0.005, `variance ${variance}`);
  });
}

/** Classes too small to hold images of them out. What is held out of others is tested with the validation. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { splitTrainingData } from "../../../lib/nn/data-split.ts";

const split = (counts: readonly number[], validationShare: number) => {
  const classes = counts.map((_, label) => `c${label}`);
  const labels = Uint16Array.from(counts.flatMap((count, label) => Array.from({ length: count }, () => label)));
  return splitTrainingData({ classes, labels }, { validationShare, seed: 1 });
};

test("where another share would do, the error names those that do", () => {
  const advised = { 2: [0.25, 0.749], 3: [0.167, 0.832], 40: [0.013, 0.986] };
  for (const [smallest, [least = 0, most = 0]] of Object.entries(advised)) {
    const counts = [100, Number(smallest)];
    for (const share of [least, most]) split(counts, share);
    const message = new RegExp(
      `class c1 leaves none .*; set one from ${least} to below ${(most + 0.001).toFixed(3)}, or 0`,
    );
    for (const share of [0.009, 0.99])
      assert.throws(() => split(counts, share), { code: "CONFIGURATION_INVALID", message });
  }
});

test("where no share would do, the error says so", () => {
  for (const share of [0.2, 0.6]) {
    const message =
      /the 1 image of class c1 leaves none .*; no share can split a class of one image: add images, or set 0$/;
    assert.throws(() => split([100, 1], share), { code: "CONFIGURATION_INVALID", message });
  }
});

test("the error names every class that is too small, or the first few of many", () => {
  assert.throws(
    () => split([100, 2, 50, 3], 0.1),
    /of the 2 images of class c1 leaves none to validate on, nor do the 3 images of class c3; set/,
  );
  assert.throws(
    () => split([100, 2, 2, 2, 2, 2, 2, 2], 0.1),
    /leaves none to validate on, nor do .*class c5, 2 more classes; set/,
  );
});

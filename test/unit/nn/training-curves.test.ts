import assert from "node:assert/strict";
import { test } from "node:test";
import sharp from "sharp";
import type { EpochReport } from "../../../lib/nn/training.ts";
import { drawTrainingCurves, roundTicks } from "../../../lib/nn/training-curves.ts";

function reports(count: number, validated: boolean): EpochReport[] {
  return Array.from({ length: count }, (_, index) => ({
    epoch: index + 1,
    epochs: count,
    loss: 2 / (index + 1),
    accuracy: 1 - 0.9 / (index + 1),
    learningRate: 0.1,
    imagesPerSecond: 1000,
    durationMs: 10,
    remainingMs: 0,
    ...(validated && { validationAccuracy: 1 - 0.8 / (index + 1), validationLoss: 1 / (index + 1) }),
  }));
}

test("curves are a picture that can be drawn, with a line for each series, for any number of epochs", async () => {
  for (const [epochs, validated, lines] of [
    [1, false, 3],
    [12, true, 5],
    [500, true, 5],
  ] as const) {
    const svg = drawTrainingCurves(reports(epochs, validated), "small on pictograms");
    assert.equal(svg.match(/<polyline/g)?.length, lines);
    assert.doesNotMatch(svg, /NaN|Infinity|undefined/);
    const { width, height } = await sharp(Buffer.from(svg)).metadata();
    assert.deepEqual([width, height], [900, 294]);
    const { channels } = await sharp(Buffer.from(svg)).stats();
    assert.ok(
      channels.slice(0, 3).every(({ stdev }) => stdev > 1),
      "it is not blank",
    );
  }
});

test("the same epochs give the same picture, however long they took", () => {
  const [quick, slow] = [1, 100].map((factor) =>
    reports(3, true).map((report) => ({ ...report, durationMs: factor, imagesPerSecond: 1 / factor })),
  );
  assert.equal(drawTrainingCurves(quick ?? [], "x"), drawTrainingCurves(slow ?? [], "x"));
});

test("a name from outside cannot break the document", () => {
  const svg = drawTrainingCurves(reports(1, false), "</title><a&b>");
  assert.match(svg, /<title>&lt;\/title>&lt;a&amp;b><\/title>/);
  assert.match(svg, /<text class="title whole"[^>]*>&lt;\/title>&lt;a&amp;b><\/text>/);
});

test("an accuracy of 100 % throughout is drawn at the upper end of its axis", () => {
  const svg = drawTrainingCurves(
    reports(3, false).map((report) => ({ ...report, accuracy: 1 })),
    "x",
  );
  assert.match(svg, />100 %</);
  assert.doesNotMatch(svg, />120 %</);
});

test("ticks are round numbers that enclose the values", () => {
  assert.deepEqual(roundTicks(0, 1, 5), [0, 0.2, 0.4, 0.6, 0.8, 1]);
  assert.deepEqual(roundTicks(0.13, 2.31, 5), [0, 0.5, 1, 1.5, 2, 2.5]);
  assert.deepEqual(roundTicks(0.1, 0.3, 4), [0.1, 0.15, 0.2, 0.25, 0.3]);
  for (const [least, greatest] of [
    [0.5, 0.5 + 1e-13],
    [1 - 1e-12, 1],
    [2.3, 2.3001],
  ] as const)
    assert.equal(roundTicks(least, greatest, 5)[0], 0, "a flat line is drawn from zero");
  for (const value of [0, 0.3, 1, 250]) {
    const ticks = roundTicks(value, value, 5);
    assert.ok((ticks[0] ?? 1) <= value && (ticks.at(-1) ?? 0) > (ticks[0] ?? 0), `${value}: ${ticks.join(" ")}`);
  }
});

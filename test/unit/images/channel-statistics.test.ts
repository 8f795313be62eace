import assert from "node:assert/strict";
import { it } from "node:test";
import { createChannelAccumulator } from "../../../lib/images/channel-statistics.ts";
import { randomFor } from "../../../lib/images/random.ts";

function randomImages(count: number): Uint8Array[] {
  const random = randomFor("statistics");
  return Array.from({ length: count }, () => Uint8Array.from({ length: 3 * 16 }, () => random.integer(256)));
}

it("agrees with the definition of mean and standard deviation", () => {
  const images = randomImages(50);
  const accumulator = createChannelAccumulator(3);
  for (const image of images) accumulator.add(image);
  const { means, deviations } = accumulator.result();
  for (let channel = 0; channel < 3; channel++) {
    const values = images.flatMap((image) => [...image.subarray(channel * 16, channel * 16 + 16)]).map((v) => v / 255);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
    assert.ok(Math.abs((means[channel] ?? 0) - mean) < 1e-12);
    assert.ok(Math.abs((deviations[channel] ?? 0) - Math.sqrt(variance)) < 1e-12);
  }
});

it("gives the same bits in whatever order the images come", () => {
  const images = randomImages(200);
  const forwards = createChannelAccumulator(3);
  const backwards = createChannelAccumulator(3);
  for (const image of images) forwards.add(image);
  for (const image of images.reverse()) backwards.add(image);
  assert.deepEqual(forwards.result(), backwards.result());
});

it("gives zeros for no images and no deviation for equal ones", () => {
  const accumulator = createChannelAccumulator(1);
  assert.deepEqual(accumulator.result(), { means: [0], deviations: [0] });
  accumulator.add(new Uint8Array(16).fill(51));
  assert.deepEqual(accumulator.result(), { means: [0.2], deviations: [0] });
});

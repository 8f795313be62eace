import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ModelManifestSchema, ModelVersionSchema } from "../../../gen/millrace/v1/model_pb.ts";
import { createDriftDetector, type DriftMeasure } from "../../../services/prediction/drift.ts";
import { type Random, withSeed } from "../../helpers/bus.ts";

const classes = ["cat", "dog", "fox"];
const manifest = create(ModelManifestSchema, {
  classes,
  input: { height: 4, width: 4, channels: 3 },
  channelMeans: [0.5, 0.5, 0.5],
  channelDeviations: [0.25, 0.25, 0.25],
});
// Of 300 images, 100 were called cat, 150 dog and 50 fox.
const confusionMatrix = [90, 10, 0, 10, 80, 10, 0, 60, 40];
const version = create(ModelVersionSchema, { name: "test", version: 1, evaluation: { confusionMatrix } });

const picture = (random: Random, mean: number): Uint8Array =>
  Uint8Array.from({ length: 48 }, () => Math.max(0, Math.min(255, 255 * (mean + (random.next() - 0.5) * 0.6))));

function answer(random: Random, shares: readonly number[]): number {
  const position = random.next();
  const ends = shares.map((_, index) => shares.slice(0, index + 1).reduce((sum, share) => sum + share, 0));
  return ends.findIndex((end) => position < end);
}

/** The measures of one window. */
function measured(
  random: Random,
  { shares = [1 / 3, 1 / 2, 1 / 6], mean = 0.5, window = 500 } = {},
): readonly DriftMeasure[] {
  const detector = createDriftDetector(version, manifest, window);
  for (let n = 1; n < window; n++) assert.equal(detector.add(answer(random, shares), picture(random, mean)), undefined);
  return detector.add(answer(random, shares), picture(random, mean)) ?? [];
}

const drifted = (measures: readonly DriftMeasure[]): string[] =>
  measures.filter((measure) => measure.drifted).map(({ name }) => name);

test("answers and images like those of the test are no drift, in small windows neither", () =>
  withSeed((random) => {
    for (const window of [20, 100, 1_000]) {
      const measures = measured(random, { window });
      assert.deepEqual(drifted(measures), [], JSON.stringify(measures));
      assert.equal(measures.length, 4);
    }
  }));

test("other shares of the classes are drift, with the class that changed most", () =>
  withSeed((random) => {
    const measures = measured(random, { shares: [0.05, 0.25, 0.7] });
    assert.deepEqual(drifted(measures), ["label_distribution"]);
    const [labels] = measures;
    assert.match(labels?.message ?? "", /called "fox", in the test 17 % were/);
    assert.ok(labels && labels.expected.length === 3 && labels.actual.length === 3);
  }));

test("darker images are drift in every channel, with the means", () =>
  withSeed((random) => {
    const measures = measured(random, { mean: 0.3 });
    assert.deepEqual(drifted(measures), ["channel_mean_0", "channel_mean_1", "channel_mean_2"]);
    assert.ok(Math.abs((measures[1]?.actual[0] ?? 0) - 0.3) < 0.02);
    assert.deepEqual(measures[1]?.expected, [0.5]);
  }));

test("a version that was never evaluated is judged by its images alone", () =>
  withSeed((random) => {
    const detector = createDriftDetector(create(ModelVersionSchema, { name: "test" }), manifest, 1);
    const measures = detector.add(0, picture(random, 0.5)) ?? [];
    assert.deepEqual(
      measures.map(({ name }) => name),
      ["channel_mean_0", "channel_mean_1", "channel_mean_2"],
    );
  }));

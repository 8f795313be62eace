import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { loadSplit } from "../../../lib/images/load-split.ts";
import { artSets } from "../../../lib/images/pictograms/art-sets.ts";
import { readDrawings } from "../../../lib/images/pictograms/drawings.ts";
import { cifar10Classes } from "../../../lib/images/sources/cifar10-classes.ts";
import { type Prepared, prepare } from "./inputs.ts";

const signal = new AbortController().signal;

async function trainPixels({ manifest, artifacts }: Prepared): Promise<Uint8Array> {
  return (await loadSplit(manifest, "train", { artifacts, signal })).pixels;
}

describe("the art sets", () => {
  for (const set of artSets) {
    it(`${set.id} has drawings of every class it should, none of them empty`, async () => {
      const drawings = await readDrawings(set, 16);
      for (const [label, own] of drawings.entries()) {
        const missing = set.id === "fxemoji" && ["cat", "deer", "dog"].includes(cifar10Classes[label] ?? "");
        const expected = missing ? 0 : 1;
        assert.ok(own.length >= expected, `${own.length} drawings of ${cifar10Classes[label]}`);
        for (const { rgba } of own) {
          const opaque = rgba.filter((value, index) => index % 4 === 3 && value > 127).length;
          assert.ok(opaque > 16, `a drawing of ${cifar10Classes[label]} covers ${opaque} of 256 pixels`);
        }
      }
    });
  }

  it("that show the same figures are on one side", () => {
    const fluent = artSets.filter(({ id }) => id.startsWith("fluent-emoji"));
    assert.deepEqual(
      fluent.map(({ split }) => split),
      ["train", "train"],
    );
  });
});

describe("the pictograms", () => {
  it("are 4,000 images to train and 1,000 to test on, evenly of ten classes", async (t) => {
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    const { dataset, manifest } = await prepare(t, { source: "pictograms" });
    clearInterval(timer);
    assert.ok(turns > 50, `other work had ${turns} turns of the event loop meanwhile`);
    assert.deepEqual([dataset.trainImages, dataset.testImages], [4000, 1000]);
    assert.deepEqual(manifest.train?.classCounts, new Array(10).fill(400));
    assert.deepEqual(
      manifest.train?.shards.map(({ imageCount }) => imageCount),
      [2000, 2000],
    );
    assert.ok(manifest.channelDeviations.every((deviation) => deviation > 0.1));
    for (const { title, licence } of artSets) {
      assert.ok(manifest.description.includes(title) && manifest.description.includes(licence), title);
    }
  });

  it("are the same bit for bit with the same seed, others with another, and the first ones with a lower limit", async (t) => {
    const seed = 12_345_678_901_234_567_890n;
    const three = await prepare(t, { limitPerClass: 3, seed });
    const again = await prepare(t, { limitPerClass: 3, seed });
    const two = await trainPixels(await prepare(t, { limitPerClass: 2, seed }));
    const other = await trainPixels(await prepare(t, { limitPerClass: 2, seed: 1n }));
    assert.equal(again.dataset.digest, three.dataset.digest);
    assert.deepEqual((await trainPixels(three)).subarray(0, two.length), two);
    assert.notDeepEqual(other, two);
  });

  it("can have another size", async (t) => {
    const { manifest } = await prepare(t, { limitPerClass: 1, imageSize: 48 });
    assert.equal(manifest.shape?.width, 48);
    assert.equal(manifest.train?.shards[0]?.pixels?.sizeBytes, BigInt(10 * 3 * 48 * 48));
  });
});

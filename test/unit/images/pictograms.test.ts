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
        const expected = set.id === "fxemoji" && cifar10Classes[label] === "deer" ? 0 : 1;
        assert.ok(own.length >= expected, `${own.length} drawings of ${cifar10Classes[label]}`);
        for (const { rgba } of own) {
          const opaque = rgba.filter((value, index) => index % 4 === 3 && value > 127).length;
          assert.ok(opaque > 16, `a drawing of ${cifar10Classes[label]} covers ${opaque} of 256 pixels`);
        }
      }
    });
  }

  it("are all named in the data set's description, with their licences", async (t) => {
    const { manifest } = await prepare(t, { limitPerClass: 1 });
    for (const { title, licence } of artSets)
      assert.ok(manifest.description.includes(title) && manifest.description.includes(licence));
  });

  it("of one author are on one side only", () => {
    const sides = (split: string): Set<string> =>
      new Set(artSets.filter((set) => set.split === split).map(({ author }) => author));
    const test = sides("test");
    assert.deepEqual(
      [...sides("train")].filter((author) => test.has(author)),
      [],
    );
  });
});

describe("the pictograms", () => {
  it("are 4,000 images to train and 1,000 to test on, evenly of ten classes", async (t) => {
    const { dataset, manifest } = await prepare(t, { source: "pictograms" });
    assert.deepEqual([dataset.trainImages, dataset.testImages], [4000, 1000]);
    assert.deepEqual(manifest.train?.classCounts, new Array(10).fill(400));
    assert.deepEqual(
      manifest.train?.shards.map(({ imageCount }) => imageCount),
      [2000, 2000],
    );
    assert.ok(manifest.channelDeviations.every((deviation) => deviation > 0.1));
  });

  it("are the same bit for bit with the same seed, and others with another", async (t) => {
    const first = await prepare(t, { limitPerClass: 3, seed: 12_345_678_901_234_567_890n });
    const again = await prepare(t, { limitPerClass: 3, seed: 12_345_678_901_234_567_890n });
    const other = await prepare(t, { limitPerClass: 3, seed: 1n });
    assert.equal(again.dataset.digest, first.dataset.digest);
    assert.notEqual(other.dataset.digest, first.dataset.digest);
    assert.notDeepEqual(await trainPixels(other), await trainPixels(first));
  });

  it("of a lower limit are the first of a higher one", async (t) => {
    const two = await trainPixels(await prepare(t, { limitPerClass: 2 }));
    const three = await trainPixels(await prepare(t, { limitPerClass: 3 }));
    assert.deepEqual(three.subarray(0, two.length), two);
  });

  it("can have another size", async (t) => {
    const { manifest } = await prepare(t, { limitPerClass: 1, imageSize: 48 });
    assert.equal(manifest.shape?.width, 48);
    assert.equal(manifest.train?.shards[0]?.pixels?.sizeBytes, BigInt(10 * 3 * 48 * 48));
  });

  it("let other work be done while they are drawn", async (t) => {
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    await prepare(t, { limitPerClass: 50 });
    clearInterval(timer);
    assert.ok(turns > 10, `${turns} turns of the event loop`);
  });
});

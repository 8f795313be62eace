import assert from "node:assert/strict";
import { it, type TestContext } from "node:test";
import { clone, create, toJsonString } from "@bufbuild/protobuf";
import {
  type DatasetManifest,
  DatasetManifestSchema,
  type DatasetShard,
  DatasetShardSchema,
} from "../../../gen/millrace/v1/dataset_pb.ts";
import type { ArtifactStore } from "../../../lib/artifacts/store.ts";
import { loadSplit } from "../../../lib/images/load-split.ts";
import { readManifest } from "../../../lib/images/manifest.ts";
import { startStore } from "./inputs.ts";

const signal = new AbortController().signal;
const text = (value: string): Uint8Array => new TextEncoder().encode(value);

async function putShard(
  artifacts: ArtifactStore,
  pixels: readonly number[],
  labels: readonly number[],
): Promise<DatasetShard> {
  const put = (bytes: Uint8Array, name: string) =>
    artifacts.put(bytes, { name, mediaType: "application/octet-stream" });
  return create(DatasetShardSchema, {
    pixels: await put(Uint8Array.from(pixels), "pixels"),
    labels: await put(new Uint8Array(labels.flatMap((label) => [label & 255, label >> 8])), "labels"),
    imageCount: labels.length,
  });
}

/** A data set of two classes and 1 x 1 images, two shards in each split. */
async function startDataset(t: TestContext): Promise<{ artifacts: ArtifactStore; manifest: DatasetManifest }> {
  const artifacts = await startStore(t);
  const shards = [await putShard(artifacts, [1, 2, 3, 4, 5, 6], [0, 1]), await putShard(artifacts, [7, 8, 9], [1])];
  const split = { imageCount: 3, classCounts: [1, 2], shards };
  const manifest = create(DatasetManifestSchema, {
    name: "tiny",
    classes: ["no", "yes"],
    shape: { height: 1, width: 1, channels: 3 },
    channelMeans: [0, 0, 0],
    channelDeviations: [1, 1, 1],
    train: split,
    test: split,
  });
  return { artifacts, manifest };
}

async function readChanged(t: TestContext, change: (manifest: DatasetManifest) => void): Promise<DatasetManifest> {
  const { artifacts, manifest } = await startDataset(t);
  const changed = clone(DatasetManifestSchema, manifest);
  change(changed);
  const json = text(toJsonString(DatasetManifestSchema, changed));
  const { digest } = await artifacts.put(json, { name: "manifest.json", mediaType: "application/json" });
  return readManifest(digest, { artifacts });
}

it("a split is loaded into shared memory, its shards one after the other", async (t) => {
  const { artifacts, manifest } = await startDataset(t);
  const { pixels, labels, count } = await loadSplit(manifest, "train", { artifacts, signal });
  assert.deepEqual([[...pixels], [...labels], count], [[1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 1, 1], 3]);
  assert.ok(pixels.buffer instanceof SharedArrayBuffer && labels.buffer instanceof SharedArrayBuffer);
});

it("a label that is no class's is refused", async (t) => {
  const { artifacts, manifest } = await startDataset(t);
  manifest.train?.shards.splice(1, 1, await putShard(artifacts, [7, 8, 9], [258]));
  await assert.rejects(loadSplit(manifest, "train", { artifacts, signal }), {
    code: "DATASET_INVALID",
    message: /image 2 has label 258, but there are 2 classes/,
  });
});

for (const [what, size] of [
  ["longer", 4],
  ["shorter", 2],
] as const) {
  it(`a shard that is ${what} than the manifest says is refused`, async (t) => {
    const { artifacts, manifest } = await startDataset(t);
    manifest.train?.shards.splice(1, 1, await putShard(artifacts, new Array(size).fill(1), [1]));
    await assert.rejects(loadSplit(manifest, "train", { artifacts, signal }), {
      code: "DATASET_INVALID",
      message: /shard sha256:\w+ has .* bytes where the manifest says 3/,
    });
  });
}

it("a shard that the store does not hold is said to be missing", async (t) => {
  const { manifest } = await startDataset(t);
  const artifacts = await startStore(t);
  await assert.rejects(loadSplit(manifest, "test", { artifacts, signal }), { code: "ARTIFACT_NOT_FOUND" });
});

it("an intact manifest is read as it was written", async (t) => {
  assert.equal((await readChanged(t, () => undefined)).name, "tiny");
});

const contradictions: Readonly<Record<string, (manifest: DatasetManifest) => void>> = {
  "has 1 classes": (manifest) => manifest.classes.pop(),
  "no shape": (manifest) => {
    delete manifest.shape;
  },
  "2 means": (manifest) => manifest.channelMeans.pop(),
  "test split is empty": (manifest) => {
    delete manifest.test;
  },
  "but 2 in shards": (manifest) => manifest.train?.shards.pop(),
};
for (const [says, change] of Object.entries(contradictions)) {
  it(`a manifest that contradicts itself is refused: ${says}`, async (t) => {
    await assert.rejects(readChanged(t, change), { code: "DATASET_INVALID", message: new RegExp(says) });
  });
}

it("an artifact that is no manifest is refused", async (t) => {
  const artifacts = await startStore(t);
  const { digest } = await artifacts.put(text("hello"), { name: "hello.txt", mediaType: "text/plain" });
  await assert.rejects(readManifest(digest, { artifacts }), {
    code: "DATASET_INVALID",
    message: /is no data set's manifest/,
  });
});

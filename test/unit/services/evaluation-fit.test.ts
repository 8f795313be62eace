/** Which data sets a model can be measured on, and what is said of the others. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { DatasetManifestSchema } from "../../../gen/millrace/v1/dataset_pb.ts";
import { ModelManifestSchema } from "../../../gen/millrace/v1/model_pb.ts";
import type { ArtifactStore } from "../../../lib/artifacts/store.ts";
import { fits, measure } from "../../../services/evaluation/measure.ts";

const shape = { height: 24, width: 32, channels: 3 };
const classes = ["cat", "dog", "fox", "hen", "owl"];
const model = create(ModelManifestSchema, { input: shape, classes });

const cases = {
  "images of another height": {
    manifest: { shape: { ...shape, height: 28 }, classes },
    message: /the model knows images of 32 x 24 x 3, but data set sha256:d has images of 32 x 28 x 3; choose/,
  },
  "grey images": {
    manifest: { shape: { ...shape, channels: 1 }, classes },
    message: /knows images of 32 x 24 x 3, but .* has images of 32 x 24 x 1;/,
  },
  "another class behind the first ones": {
    manifest: { shape, classes: ["cat", "dog", "fox", "hen", "elk"] },
    message: /knows 5 classes, of which number 5 is owl, but .* has 5 classes, of which number 5 is elk;/,
  },
  "one class fewer": {
    manifest: { shape, classes: classes.slice(0, -1) },
    message: /knows 5 classes, of which number 5 is owl, but .* has 4 classes;/,
  },
  "one class more": {
    manifest: { shape, classes: [...classes, "pig"] },
    message: /knows 5 classes, but .* has 6 classes, of which number 6 is pig;/,
  },
};

for (const [name, { manifest, message }] of Object.entries(cases)) {
  test(`a data set of ${name} is refused, and the error says what differs`, async () => {
    const dataset = { digest: "sha256:d", manifest: create(DatasetManifestSchema, manifest) };
    assert.ok(!fits(model, dataset));
    const signal = new AbortController().signal;
    const options = { artifacts: {} as ArtifactStore, onProgress: () => undefined, signal };
    await assert.rejects(measure(model, dataset, options), { code: "DATASET_INVALID", message });
  });
}

test("a data set of the same images and classes fits", () => {
  assert.ok(fits(model, { digest: "sha256:d", manifest: create(DatasetManifestSchema, { shape, classes }) }));
});

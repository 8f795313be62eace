/** Loading a version as the prediction service does. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { create, toJsonString } from "@bufbuild/protobuf";
import { ModelManifestSchema, type ModelVersion, ModelVersionSchema } from "../../../gen/millrace/v1/model_pb.ts";
import { openFolderStore } from "../../../lib/artifacts/folder-store.ts";
import type { ArtifactStore } from "../../../lib/artifacts/store.ts";
import { createInferenceThreads } from "../../../lib/nn/inference.ts";
import { readModelManifest } from "../../../lib/registry/model-manifest.ts";
import { loadModel } from "../../../services/prediction/serving.ts";
import { storeModel } from "../../helpers/served-model.ts";
import { tempFolder } from "../../helpers/temp-folder.ts";
import { collectThreads } from "../../helpers/threads.ts";

const batching = { maxBatchSize: 8, maxDelayMs: 0, maxQueueLength: 100, maxWaitMs: 60_000 };

/** The same version with a manifest that promises images of another size than the model takes. */
async function storeMistaken(artifacts: ArtifactStore, version: ModelVersion): Promise<ModelVersion> {
  const manifest = await readModelManifest(version, artifacts);
  if (manifest.input !== undefined) manifest.input.height = 8;
  const json = Buffer.from(toJsonString(ModelManifestSchema, manifest));
  const stored = await artifacts.put(json, { mediaType: "application/json", name: "model.json" });
  return create(ModelVersionSchema, { ...version, digest: stored.digest, manifest: stored });
}

test("a version that fails when it is warmed up is not served, and the next gets its thread", async (t) => {
  const started = collectThreads(t);
  await using artifacts = await openFolderStore(await tempFolder(t));
  await using threads = createInferenceThreads();
  const sound = await storeModel(artifacts);
  const mistaken = await storeMistaken(artifacts, sound);
  await assert.rejects(loadModel(mistaken, { artifacts, threads, batching }), { code: "INVALID_REQUEST" });
  await using model = await loadModel(sound, { artifacts, threads, batching });
  const { output } = await model.classify(() => new Uint8Array(16 * 16 * 3));
  assert.equal(output.probabilities.length, 3);
  assert.equal(started.length, 1);
});

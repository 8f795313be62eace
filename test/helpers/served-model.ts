/** A small model, untrained and so as quick to make as it is wrong, loaded from a store as the prediction service loads it. */
import { create, toJsonString } from "@bufbuild/protobuf";
import { ModelManifestSchema, type ModelVersion, ModelVersionSchema } from "../../gen/millrace/v1/model_pb.ts";
import { openFolderStore } from "../../lib/artifacts/folder-store.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import { buildInferenceModel } from "../../lib/nn/inference-graph.ts";
import { metadataFromDescription } from "../../lib/nn/model-description.ts";
import { small } from "../../lib/nn/networks/small.ts";
import { planFromLayersModel } from "../../lib/nn/plan.ts";
import type { BatchSettings } from "../../services/prediction/batcher.ts";
import { type LoadedModel, loadModel } from "../../services/prediction/serving.ts";

const classes = ["cat", "dog", "fox"];
const shape = { height: 16, width: 16, channels: 3 };
const normalization = { mean: [0.5, 0.5, 0.5], standardDeviation: [0.25, 0.25, 0.25] };

/** Puts the model into a store in `folder` and loads it from there. Dispose of what comes back. */
export async function startServedModel(folder: string, batching: BatchSettings): Promise<LoadedModel> {
  await using artifacts = await openFolderStore(folder);
  return loadModel(await storeModel(artifacts), { artifacts, batching });
}

/** Puts the model into a store, as version 1 of "test". */
export async function storeModel(artifacts: ArtifactStore): Promise<ModelVersion> {
  const plan = planFromLayersModel(small.build({ ...shape, classes: classes.length, seed: 5 }));
  const metadata = metadataFromDescription({
    network: "small",
    classes,
    input: { ...shape, ...normalization },
    parameterCount: 1,
    forwardFlopsPerImage: 1,
    mirrored: false,
  });
  const model = buildInferenceModel(plan, { ...normalization, metadata });
  const onnx = await artifacts.put(model, { mediaType: "application/vnd.onnx", name: "model.onnx" });
  const json = toJsonString(ModelManifestSchema, create(ModelManifestSchema, { input: shape, classes, onnx }));
  const manifest = await artifacts.put(Buffer.from(json), { mediaType: "application/json", name: "model.json" });
  return create(ModelVersionSchema, { name: "test", version: 1, digest: manifest.digest, manifest });
}

/** The standard file format of TensorFlow.js Layers models, `model.json` and `weights.bin`, to and from memory. */
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { z } from "zod";
import { AppError } from "../errors.ts";
import { core, layers } from "./tensorflow.ts";

/** What `tf.loadLayersModel` reads: the two files, of which the first names the second. */
export interface LayersModelFiles {
  /** `model.json`. */
  readonly modelJson: string;
  /** `weights.bin`. */
  readonly weights: Uint8Array;
}

const modelJsonSchema = z.looseObject({
  modelTopology: z.looseObject({}),
  weightsManifest: z.tuple([z.looseObject({ weights: z.array(z.custom<core.io.WeightsManifestEntry>()) })]),
});

/** Writes a model. */
export async function saveLayersModel(model: LayersModel): Promise<LayersModelFiles> {
  const artifacts = await new Promise<core.io.ModelArtifacts>((resolve, reject) => {
    const handler = core.io.withSaveHandler(async (saved) => {
      resolve(saved);
      return { modelArtifactsInfo: core.io.getModelArtifactsInfoForJSON(saved) };
    });
    model.save(handler).catch(reject);
  });
  const { modelTopology, weightSpecs, weightData, generatedBy, convertedBy } = artifacts;
  const modelJson = JSON.stringify({
    format: "layers-model",
    generatedBy,
    convertedBy,
    modelTopology,
    weightsManifest: [{ paths: ["weights.bin"], weights: weightSpecs }],
  });
  return { modelJson, weights: new Uint8Array(core.io.CompositeArrayBuffer.join(weightData)) };
}

/** Reads a model. Throws ARTIFACT_CORRUPT for files that are none. Dispose of the model when it is done with. */
export async function loadLayersModel({ modelJson, weights }: LayersModelFiles): Promise<LayersModel> {
  try {
    const { modelTopology, weightsManifest } = modelJsonSchema.parse(JSON.parse(modelJson));
    const weightData = new Uint8Array(weights).buffer;
    const artifacts = { modelTopology, weightSpecs: weightsManifest[0].weights, weightData };
    return await layers.loadLayersModel(core.io.fromMemory(artifacts));
  } catch (thrown) {
    throw new AppError("ARTIFACT_CORRUPT", "the layers model cannot be read", { cause: thrown });
  }
}

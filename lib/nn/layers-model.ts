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

/** Parsed without copies, so that what is put right is put right in the topology itself. */
const topologyLayer = z.custom<{ class_name: string; config: Record<string, unknown> }>();
const topologySchema = z.looseObject({ config: z.looseObject({ layers: z.array(topologyLayer) }) });

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
  repairTopology(modelTopology, model);
  const modelJson = JSON.stringify({
    format: "layers-model",
    generatedBy,
    convertedBy,
    modelTopology,
    weightsManifest: [{ paths: ["weights.bin"], weights: weightSpecs }],
  });
  return { modelJson, weights: new Uint8Array(core.io.CompositeArrayBuffer.join(weightData)) };
}

/**
 * Corrects what TensorFlow.js 4.22 writes of two layers, and could not read back: a depthwise convolution's regulariser in the
 * place of its constraint as well, and a separable convolution without its depth multiplier. Whoever takes a model's
 * topology and reads it again needs this in between.
 */
export function repairTopology(topology: unknown, model: LayersModel): void {
  for (const { class_name: className, config } of topologySchema.parse(topology).config.layers) {
    if (className === "DepthwiseConv2D") config.depthwise_constraint = null;
    if (className !== "SeparableConv2D") continue;
    const [kernel] = model.getLayer(String(config.name)).getWeights();
    config.depth_multiplier = kernel?.shape[3] ?? 1;
  }
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

/** The model that is served: a network of Millrace, untrained, which answers wrongly and as fast as a trained one. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { buildInferenceModel } from "../../lib/nn/inference-graph.ts";
import { metadataFromDescription } from "../../lib/nn/model-description.ts";
import { findNetwork } from "../../lib/nn/networks.ts";
import { forwardFlops, parameterCount, planFromLayersModel } from "../../lib/nn/plan.ts";

/** Shape of the images. The Python servers assume the same. */
export const shape = { height: 32, width: 32, channels: 3 };
export const classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
/** flask_tensorflow.py normalises by the same. */
const normalization = { mean: [0.5, 0.5, 0.5], standardDeviation: [0.25, 0.25, 0.25] };

export interface ServedModel {
  readonly onnx: Uint8Array;
  readonly layers: LayersModel;
}

/** Another seed makes another version. */
export function buildModel(network: string, seed: number): ServedModel {
  const layers = findNetwork(network).build({ ...shape, classes: classes.length, seed });
  const plan = planFromLayersModel(layers);
  const metadata = metadataFromDescription({
    network,
    classes,
    input: { ...shape, ...normalization },
    parameterCount: parameterCount(plan),
    forwardFlopsPerImage: forwardFlops(plan),
    mirrored: false,
  });
  return { onnx: buildInferenceModel(plan, { ...normalization, metadata }), layers };
}

/**
 * Writes what the Python servers load: `model.onnx`, and the same network for Keras as `layers.json`, the description of its layers, and
 * `weights.bin`, their weights as float32, layer by layer.
 */
export async function writeModelFiles(folder: string, { onnx, layers }: ServedModel): Promise<void> {
  await mkdir(folder, { recursive: true });
  const tensors = layers.layers.flatMap((layer) => layer.getWeights());
  const values = tensors.map((tensor) => Buffer.from(Float32Array.from(tensor.dataSync()).buffer));
  await Promise.all([
    writeFile(join(folder, "model.onnx"), onnx),
    writeFile(join(folder, "layers.json"), String(layers.toJSON())),
    writeFile(join(folder, "weights.bin"), Buffer.concat(values)),
  ]);
}

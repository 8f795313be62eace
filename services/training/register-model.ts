import { create, type JsonObject, toJsonString } from "@bufbuild/protobuf";
import { trace } from "@opentelemetry/api";
import type { DatasetManifest } from "../../gen/millrace/v1/dataset_pb.ts";
import { LineageSchema, ModelManifestSchema } from "../../gen/millrace/v1/model_pb.ts";
import { TrainingSummarySchema } from "../../gen/millrace/v1/training_pb.ts";
import type { TrainingResult } from "../../lib/nn/training.ts";
import { drawTrainingCurves } from "../../lib/nn/training-curves.ts";
import { withSpan } from "../../lib/telemetry/spans.ts";
import { codeVersion } from "../../lib/version.ts";
import { trainingEnds } from "./epoch-metrics.ts";
import type { TrainedVersion, TrainingDependencies, TrainingOrder } from "./handlers.ts";

/** A finished training, and what it was made from. */
export interface TrainedModel {
  readonly manifest: DatasetManifest;
  readonly result: TrainingResult;
  readonly network: string;
  readonly hyperparameters: JsonObject;
  readonly engine: string;
}

/** Stores a trained model's parts and its manifest, and registers it as a version. */
export async function registerModel(
  { artifacts, registry }: Pick<TrainingDependencies, "artifacts" | "registry">,
  order: TrainingOrder,
  trained: TrainedModel,
): Promise<TrainedVersion> {
  const { network, hyperparameters, engine } = trained;
  const lineage = create(LineageSchema, {
    runId: order.origin.runId,
    datasetDigest: order.datasetDigest,
    network,
    hyperparameters,
    codeVersion: codeVersion(),
    engine,
  });
  const { parts, manifest } = await withSpan("store model", {}, async () => {
    const parts = await storeParts({ artifacts }, trained);
    const model = { ...parts, lineage };
    const json = toJsonString(ModelManifestSchema, create(ModelManifestSchema, model), { prettySpaces: 2 });
    const file = { mediaType: "application/json", name: "model.json" };
    return { parts, manifest: await artifacts.put(new TextEncoder().encode(json), file) };
  });
  // The trace is not part of the manifest: a second try of the same run gives the same digest.
  const { traceId = "", spanId = "" } = trace.getActiveSpan()?.spanContext() ?? {};
  const version = {
    name: order.modelName,
    digest: manifest.digest,
    manifest,
    lineage: { ...lineage, traceId, spanId },
  };
  const { end, keptEpoch, epochs } = trained.result;
  const summary = create(TrainingSummarySchema, {
    end: trainingEnds[end],
    epochs: epochs.length,
    keptEpoch,
    curves: parts.trainingCurves,
  });
  return { model: await registry.register(version, order.origin), summary };
}

async function storeParts(
  { artifacts }: Pick<TrainingDependencies, "artifacts">,
  { manifest, result, network }: TrainedModel,
) {
  const topology = new TextEncoder().encode(result.layersModel.modelJson);
  const onnx = await artifacts.put(result.onnx, { mediaType: "application/vnd.onnx", name: "model.onnx" });
  const layersModel = await artifacts.put(topology, { mediaType: "application/json", name: "layers-model.json" });
  const layersWeights = await artifacts.put(result.layersModel.weights, {
    mediaType: "application/octet-stream",
    name: "layers-weights.bin",
  });
  const curves = drawTrainingCurves(result.epochs, `Training of ${network} on ${manifest.name}`);
  const trainingCurves = await artifacts.put(new TextEncoder().encode(curves), {
    mediaType: "image/svg+xml",
    name: "training-curves.svg",
  });
  return {
    ...(manifest.shape === undefined ? {} : { input: manifest.shape }),
    classes: manifest.classes,
    onnx,
    layersModel,
    layersWeights,
    channelMeans: manifest.channelMeans,
    channelDeviations: manifest.channelDeviations,
    parameterCount: BigInt(result.parameterCount),
    trainingCurves,
  };
}

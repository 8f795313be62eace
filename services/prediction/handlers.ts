import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  type GetModelResponse,
  GetModelResponseSchema,
  type PredictBatchRequest,
  type PredictBatchResponse,
  PredictBatchResponseSchema,
  type PredictBatchResultSchema,
  type PredictionTimingsSchema,
  type PredictRequest,
  type PredictResponse,
  PredictResponseSchema,
  type UpdateBatchingRequest,
  type UpdateBatchingResponse,
  UpdateBatchingResponseSchema,
  Priority as WirePriority,
} from "../../gen/millrace/v1/prediction_pb.ts";
import { statusFromError } from "../../lib/rpc/server-errors.ts";
import type { Priority } from "./batcher.ts";
import { decodeFor, type LiveModel, requireModel, withModel } from "./live-model.ts";
import type { LoadedModel } from "./serving.ts";

export interface PredictionDependencies extends LiveModel {
  /** The bytes of an image that a client names by its URL. */
  readonly fetchImage: (url: string, signal: AbortSignal) => Promise<Uint8Array>;
}

/** The work of the service. What is asked of a model throws MODEL_NOT_READY before the first is live. */
export interface Prediction {
  /**
   * Classifies an image. IMAGE_UNREADABLE, IMAGE_TOO_LARGE or IMAGE_URL_REFUSED for bad input, DOWNLOAD_FAILED for a URL behind which there
   * is nothing, QUEUE_FULL if too many wait; the signal's reason as soon as it aborts.
   */
  predict(request: PredictRequest, signal: AbortSignal): Promise<PredictResponse>;
  /** Classifies several images with one model. What is wrong with one of them is its result. */
  predictBatch(request: PredictBatchRequest, signal: AbortSignal): Promise<PredictBatchResponse>;
  /** Describes the model that answers. */
  describe(): GetModelResponse;
  /** Changes how batches are formed, and says what holds then. */
  updateBatching(changes: UpdateBatchingRequest): UpdateBatchingResponse;
}

export function createPrediction(dependencies: PredictionDependencies): Prediction {
  const { deployment, fetchImage } = dependencies;
  return {
    predict: ({ input, topK, priority }, signal) =>
      withModel(dependencies, async (model) => {
        const settings = { topK, priority: priorityOf(priority), signal };
        const source =
          input.case === "imageUrl" ? () => fetchImage(input.value, signal) : (input.value ?? new Uint8Array());
        const classes = await classify(model, source, settings);
        return create(PredictResponseSchema, { ...classes, model: servedModel(model) });
      }),
    predictBatch: ({ images, topK, priority }, signal) =>
      withModel(dependencies, async (model) => {
        const settings = { topK, priority: priorityOf(priority), signal };
        const results = await Promise.all(images.map((image) => resultOf(classify(model, image, settings))));
        signal.throwIfAborted();
        return create(PredictBatchResponseSchema, { results, model: servedModel(model) });
      }),
    describe: () => {
      const model = requireModel(dependencies);
      return create(GetModelResponseSchema, {
        model: servedModel(model),
        classes: model.manifest.classes,
        deployedAt: timestampFromDate(model.deployedAt),
      });
    },
    updateBatching({ maxBatchSize, maxDelayMs, maxQueueLength }) {
      const before = deployment.batching;
      deployment.batching = {
        maxBatchSize: maxBatchSize ?? before.maxBatchSize,
        maxDelayMs: maxDelayMs ?? before.maxDelayMs,
        maxQueueLength: maxQueueLength ?? before.maxQueueLength,
      };
      return create(UpdateBatchingResponseSchema, deployment.batching);
    },
  };
}

interface ClassifySettings {
  readonly topK: number;
  readonly priority: Priority;
  readonly signal: AbortSignal;
}

/** The fields that Predict and the results of PredictBatch have in common. */
interface ClassifiedImage {
  readonly predictions: ReturnType<typeof ranked>;
  readonly timings: MessageInitShape<typeof PredictionTimingsSchema>;
}

async function classify(
  model: LoadedModel,
  source: Uint8Array | (() => Promise<Uint8Array>),
  { topK, ...options }: ClassifySettings,
): Promise<ClassifiedImage> {
  let [fetchMs, decodeMs] = [0, 0];
  const decode = async (): Promise<Uint8Array> => {
    const startedMs = performance.now();
    const image = typeof source === "function" ? await source() : source;
    const fetchedMs = performance.now();
    const pixels = await decodeFor(model, image);
    if (typeof source === "function") fetchMs = fetchedMs - startedMs;
    decodeMs = performance.now() - fetchedMs;
    return pixels;
  };
  const { output, queuedMs: queueMs, batchSize } = await model.classify(decode, options);
  const { probabilities, inferenceMs } = output;
  return {
    predictions: ranked(probabilities, model.manifest.classes, topK),
    timings: { fetchMs, decodeMs, queueMs, inferenceMs, batchSize },
  };
}

/** An image's classes or its error. */
async function resultOf(classes: Promise<ClassifiedImage>): Promise<MessageInitShape<typeof PredictBatchResultSchema>> {
  try {
    return { result: { case: "classes", value: await classes } };
  } catch (error) {
    return { result: { case: "error", value: statusFromError(error) } };
  }
}

function priorityOf(priority: WirePriority): Priority {
  if (priority === WirePriority.HIGH) return "high";
  return priority === WirePriority.LOW ? "low" : "normal";
}

/** Classes by falling probability, at most `topK` of them; 0 is all. */
export function ranked(probabilities: Float32Array, classes: readonly string[], topK: number) {
  return classes
    .map((label, classIndex) => ({ label, classIndex, probability: probabilities[classIndex] ?? 0 }))
    .sort((a, b) => b.probability - a.probability)
    .slice(0, topK === 0 ? undefined : topK);
}

function servedModel({ version }: LoadedModel) {
  return {
    name: version.name,
    version: version.version,
    digest: version.digest,
    datasetDigest: version.lineage?.datasetDigest ?? "",
    runId: version.lineage?.runId ?? "",
  };
}

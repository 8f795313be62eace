import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  type GetModelRequest,
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
  type PredictStreamRequest,
  type PredictStreamResponse,
  PredictStreamResponseSchema,
  type UpdateBatchingRequest,
  type UpdateBatchingResponse,
  UpdateBatchingResponseSchema,
  Priority as WirePriority,
} from "../../gen/millrace/v1/prediction_pb.ts";
import { AppError } from "../../lib/errors.ts";
import { answerInOrder } from "../../lib/rpc/answer-in-order.ts";
import { statusFromError } from "../../lib/rpc/server-errors.ts";
import {
  type AnsweringDependencies,
  type AnsweringModel,
  type Caller,
  CallRequest,
  choose,
  decodeFor,
  withModel,
} from "./answering.ts";
import type { BatchSettings } from "./batch-settings.ts";
import type { Priority } from "./priority-queue.ts";
import { servedModel } from "./served-models.ts";

export interface PredictionDependencies extends AnsweringDependencies {
  /** The bytes of an image that a client names by its URL. */
  readonly fetchImage: (url: string, signal: AbortSignal) => Promise<Uint8Array>;
  /** Tells all workers of the service how batches are formed from now on. */
  readonly shareBatching: (settings: BatchSettings) => void;
}

/** The work of the service. What is asked of a model throws MODEL_NOT_READY before the first is live. */
export interface Prediction {
  /**
   * Classifies an image. IMAGE_UNREADABLE, IMAGE_TOO_LARGE or IMAGE_URL_REFUSED for bad input, DOWNLOAD_FAILED for a URL behind which there
   * is nothing, MODEL_NOT_FOUND if the version that is named does not exist, QUEUE_FULL if it would have to wait for too long; the reason of the
   * caller's signal as soon as that aborts.
   */
  predict(request: PredictRequest, caller: Caller): Promise<PredictResponse>;
  /** Classifies several images with one model. They are admitted together; what is wrong with one of them is its result. */
  predictBatch(request: PredictBatchRequest, caller: Caller): Promise<PredictBatchResponse>;
  /** Classifies images as they come, and answers in their order. What is wrong with one of them is its answer. */
  predictStream(
    requests: AsyncIterable<PredictStreamRequest>,
    signal: AbortSignal,
  ): AsyncGenerator<PredictStreamResponse>;
  /** Describes the champion or another version, which is loaded if need be. */
  describe(request: GetModelRequest): Promise<GetModelResponse>;
  /** Changes how batches are formed, and says what holds then. */
  updateBatching(changes: UpdateBatchingRequest): UpdateBatchingResponse;
}

/** Images of one stream that are worked on at a time; further ones are not read meanwhile. */
const streamAhead = 64;

export function createPrediction(dependencies: PredictionDependencies): Prediction {
  const { deployment, fetchImage, shareBatching } = dependencies;
  const answer = (request: PredictRequest, asked: CallRequest) => {
    const { input, topK } = request;
    return withModel(dependencies, asked, async (model) => {
      const classes = await classify(model, input, { topK, caller: asked, fetchImage });
      return create(PredictResponseSchema, { ...classes, model: servedModel(model.version) });
    });
  };
  return {
    predict: (request, caller) => answer(request, callRequest(request, caller)),
    predictBatch: (request, caller) => {
      const { images, topK } = request;
      const asked = callRequest(request, caller, { count: images.length });
      return withModel(dependencies, asked, async (model) => {
        const settings = { topK, caller, fetchImage };
        const classified = images.map((value) => resultOf(classify(model, { case: "image", value }, settings)));
        const results = await Promise.all(classified);
        caller.signal.throwIfAborted();
        return create(PredictBatchResponseSchema, { results, model: servedModel(model.version) });
      });
    },
    predictStream: (requests, signal) =>
      answerInOrder(requests, streamAhead, async ({ request }) => {
        // The client of a stream is slowed down, not refused.
        const patient = (asked: PredictRequest) => callRequest(asked, { signal }, { isPatient: true });
        const result = await streamResultOf(request === undefined ? noRequest() : answer(request, patient(request)));
        signal.throwIfAborted();
        return create(PredictStreamResponseSchema, { result });
      }),
    describe: async ({ model: selected }) => {
      const selector = selected?.selector ?? ({ case: "alias", value: "champion" } as const);
      using held = await choose(dependencies, { selector });
      const { version, manifest, loadedAt } = held.model;
      return create(GetModelResponseSchema, {
        model: servedModel(version),
        classes: manifest.classes,
        deployedAt: timestampFromDate(loadedAt),
        ...(manifest.input && { input: manifest.input }),
      });
    },
    updateBatching({ maxBatchSize, maxDelayMs, maxQueueLength, maxWaitMs }) {
      const before = deployment.batching;
      deployment.batching = {
        maxBatchSize: maxBatchSize ?? before.maxBatchSize,
        maxDelayMs: maxDelayMs ?? before.maxDelayMs,
        maxQueueLength: maxQueueLength ?? before.maxQueueLength,
        maxWaitMs: maxWaitMs ?? before.maxWaitMs,
      };
      shareBatching(deployment.batching);
      return create(UpdateBatchingResponseSchema, deployment.batching);
    },
  };
}

function callRequest(
  { model, routingKey, priority }: Pick<PredictRequest, "model" | "routingKey" | "priority">,
  caller: Caller,
  options: Partial<Pick<CallRequest, "count" | "isPatient">> = {},
): CallRequest {
  return new CallRequest(caller, { selector: model?.selector, routingKey, priority: priorityOf(priority), ...options });
}

interface ClassifySettings extends Pick<PredictionDependencies, "fetchImage"> {
  readonly topK: number;
  readonly caller: Pick<Caller, "signal">;
}

/** The fields that Predict and the results of PredictBatch have in common. */
interface ClassifiedImage {
  readonly predictions: ReturnType<typeof ranked>;
  readonly timings: MessageInitShape<typeof PredictionTimingsSchema>;
  readonly predictionId: string;
}

async function classify(
  model: AnsweringModel,
  input: PredictRequest["input"],
  { topK, fetchImage, caller }: ClassifySettings,
): Promise<ClassifiedImage> {
  const startedMs = performance.now();
  // Before it waits for its turn, which a slow host would take from others.
  const fetched = input.case === "imageUrl" ? await fetchImage(input.value, caller.signal) : undefined;
  const fetchMs = fetched === undefined ? 0 : performance.now() - startedMs;
  const {
    output,
    queuedMs: queueMs,
    preparedMs: decodeMs,
    batchSize,
  } = await model.classify(() => {
    if (input.case === "pixels") return checkedPixels(model, input.value);
    return decodeFor(model, fetched ?? (input.case === "image" ? input.value : new Uint8Array()));
  });
  const { probabilities, inferenceMs, predictionId } = output;
  return {
    predictions: ranked(probabilities, model.manifest.classes, topK),
    timings: { fetchMs, decodeMs, queueMs, inferenceMs, batchSize },
    predictionId,
  };
}

function checkedPixels({ version, manifest }: AnsweringModel, pixels: Uint8Array): Uint8Array {
  const { channels = 0, height = 0, width = 0 } = manifest.input ?? {};
  if (pixels.length === channels * height * width) return pixels;
  const needed = `${channels} x ${height} x ${width} = ${channels * height * width} bytes`;
  const text = `pixels has ${pixels.length} bytes; version ${version.version} takes channels x height x width, ${needed}`;
  throw new AppError("INVALID_REQUEST", text, { details: { field: "pixels" } });
}

async function noRequest(): Promise<never> {
  throw new AppError("INVALID_REQUEST", "the message has no request", { details: { field: "request" } });
}

/** An image's classes or its error. */
async function resultOf(classes: Promise<ClassifiedImage>): Promise<MessageInitShape<typeof PredictBatchResultSchema>> {
  try {
    return { result: { case: "classes", value: await classes } };
  } catch (error) {
    return { result: { case: "error", value: statusFromError(error) } };
  }
}

async function streamResultOf(response: Promise<PredictResponse>) {
  try {
    return { case: "response", value: await response } as const;
  } catch (error) {
    return { case: "error", value: statusFromError(error) } as const;
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

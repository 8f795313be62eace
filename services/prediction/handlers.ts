import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { Status } from "../../gen/google/rpc/status_pb.ts";
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
import type { ImageFetcher } from "../../lib/images/image-url.ts";
import type { Logger } from "../../lib/log.ts";
import { type Ahead, answerInOrder } from "../../lib/rpc/answer-in-order.ts";
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
  readonly fetchImage: ImageFetcher;
  readonly logger: Logger;
  /** Tells all workers of the service how batches are formed from now on. */
  readonly shareBatching: (settings: BatchSettings) => void;
}

/** The work of the service. What is asked of a model throws MODEL_NOT_READY before the first is live. */
export interface Prediction {
  /**
   * Classifies an image. IMAGE_UNREADABLE, IMAGE_TOO_LARGE or IMAGE_URL_REFUSED for bad input, IMAGE_NOT_FETCHED for a URL behind which there
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

/** What is worked on of one stream at a time: images, and their bytes. Further ones are not read meanwhile. */
const streamAhead: Ahead<PredictStreamRequest> = {
  count: 64,
  size: 32 * 1024 ** 2,
  sizeOf: ({ request }) => sizeOf(request?.input),
};

export function createPrediction(dependencies: PredictionDependencies): Prediction {
  const { deployment, fetchImage, shareBatching, logger } = dependencies;
  /** The error of an image whose call goes on, and so tells nobody that there is something to look into. */
  const statusOf = (thrown: unknown): Status => {
    if (AppError.from(thrown).code === "INTERNAL") {
      logger.error({ event: "prediction.failed", error: thrown }, "an image of several could not be classified");
    }
    return statusFromError(thrown);
  };
  const answerTo = (request: PredictRequest, given: Given, asked: CallRequest) =>
    withModel(dependencies, asked, async (model) => {
      const classes = await classify(model, given, request.topK);
      return create(PredictResponseSchema, { ...classes, model: servedModel(model.version) });
    });
  const answer = (request: PredictRequest, caller: Caller, options?: CallOptions) => {
    const { input } = request;
    if (input.case !== "imageUrl") {
      const asked = callRequest(request, caller, { ...options, sizeBytes: sizeOf(input) });
      return answerTo(request, { ...input, field: "image" }, asked);
    }
    const startedMs = performance.now();
    // Before it is admitted: a slow host would hold a place that others need.
    return fetchImage(input.value, caller.signal).then((value) => {
      const fetchMs = performance.now() - startedMs;
      const given = { case: "image", value, field: "image_url", fetchMs } as const;
      return answerTo(request, given, callRequest(request, caller, { ...options, sizeBytes: value.length }));
    });
  };
  return {
    predict: (request, caller) => answer(request, caller),
    predictBatch: (request, caller) => {
      const { images, topK } = request;
      const sizeBytes = images.reduce((sum, { length }) => sum + length, 0);
      const asked = callRequest(request, caller, { count: images.length, sizeBytes });
      return withModel(dependencies, asked, async (model) => {
        const classified = images.map((value, index) =>
          classify(model, { case: "image", value, field: `images[${index}]` }, topK),
        );
        const results = await Promise.all(classified.map((classes) => resultOf(classes, statusOf)));
        caller.signal.throwIfAborted();
        return create(PredictBatchResponseSchema, { results, model: servedModel(model.version) });
      });
    },
    predictStream: (requests, signal) =>
      answerInOrder(requests, streamAhead, async ({ request }) => {
        // The client of a stream is slowed down, and not refused for the wait.
        const patient = { isPatient: true };
        const response = request === undefined ? noRequest() : answer(request, { signal }, patient);
        const result = await streamResultOf(response, statusOf);
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

type CallOptions = Partial<Pick<CallRequest, "count" | "isPatient" | "sizeBytes">>;

function callRequest(
  { model, routingKey, priority }: Pick<PredictRequest, "model" | "routingKey" | "priority">,
  caller: Caller,
  options?: CallOptions,
): CallRequest {
  return new CallRequest(caller, { selector: model?.selector, routingKey, priority: priorityOf(priority), ...options });
}

/** Bytes of an image or of its pixels; of one that is to be fetched only those of its URL. */
function sizeOf(input: PredictRequest["input"] | undefined): number {
  return input?.value?.length ?? 0;
}

/** What is to be classified. */
type Given = Exclude<PredictRequest["input"], { case: "imageUrl" }> & {
  /** In which it came. */
  readonly field: string;
  /** How long it was fetched, where the client gave its URL. */
  readonly fetchMs?: number;
};

/** The fields that Predict and the results of PredictBatch have in common. */
interface ClassifiedImage {
  readonly predictions: ReturnType<typeof ranked>;
  readonly timings: MessageInitShape<typeof PredictionTimingsSchema>;
  readonly predictionId: string;
}

async function classify(model: AnsweringModel, given: Given, topK: number): Promise<ClassifiedImage> {
  const {
    output,
    queuedMs: queueMs,
    preparedMs: decodeMs,
    batchSize,
  } = await model.classify(() => {
    if (given.case === "pixels") return checkedPixels(model, given.value);
    return decodeFor(model, given.case === "image" ? given.value : new Uint8Array(), given);
  });
  const { probabilities, inferenceMs, predictionId } = output;
  return {
    predictions: ranked(probabilities, model.manifest.classes, topK),
    timings: { fetchMs: given.fetchMs ?? 0, decodeMs, queueMs, inferenceMs, batchSize },
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

type StatusOf = (thrown: unknown) => Status;

/** An image's classes or its error. */
async function resultOf(
  classes: Promise<ClassifiedImage>,
  statusOf: StatusOf,
): Promise<MessageInitShape<typeof PredictBatchResultSchema>> {
  try {
    return { result: { case: "classes", value: await classes } };
  } catch (error) {
    return { result: { case: "error", value: statusOf(error) } };
  }
}

async function streamResultOf(response: Promise<PredictResponse>, statusOf: StatusOf) {
  try {
    return { case: "response", value: await response } as const;
  } catch (error) {
    return { case: "error", value: statusOf(error) } as const;
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

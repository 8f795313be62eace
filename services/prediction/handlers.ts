import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { context, type Link, type SpanContext, TraceFlags, trace } from "@opentelemetry/api";
import type { ModelVersion } from "../../gen/millrace/v1/model_pb.ts";
import {
  type GetModelResponse,
  GetModelResponseSchema,
  type PredictRequest,
  type PredictResponse,
  PredictResponseSchema,
} from "../../gen/millrace/v1/prediction_pb.ts";
import { AppError } from "../../lib/errors.ts";
import { decodeImage } from "../../lib/images/decode-image.ts";
import { withSpan } from "../../lib/telemetry/spans.ts";
import type { LoadedModel } from "./serving.ts";

export interface PredictionDependencies {
  /** The model that answers now, if there is one yet. */
  readonly current: () => LoadedModel | undefined;
  /** Name of the model that this service waits for, for the error before it is there. */
  readonly modelName: string;
}

/** The work of the service. */
export interface Prediction {
  /** Classifies an image. MODEL_NOT_READY before the first model, IMAGE_UNREADABLE or IMAGE_TOO_LARGE for bad input. */
  predict(request: PredictRequest): Promise<PredictResponse>;
  /** Describes the model that answers. MODEL_NOT_READY before the first. */
  describe(): GetModelResponse;
}

export function createPrediction(dependencies: PredictionDependencies): Prediction {
  return {
    predict: async (request) => {
      const model = requireModel(dependencies);
      using _lease = model.lease();
      const answer = await withSpan("classify", { attributes: attributesOf(model), links: linksTo(model) }, () =>
        classify(model, request),
      );
      await noteFirstAnswer(model);
      return answer;
    },
    describe: () => {
      const model = requireModel(dependencies);
      return create(GetModelResponseSchema, {
        model: servedModel(model),
        classes: model.manifest.classes,
        deployedAt: timestampFromDate(model.deployedAt),
      });
    },
  };
}

function requireModel({ current, modelName }: PredictionDependencies): LoadedModel {
  const model = current();
  if (model !== undefined) return model;
  throw new AppError(
    "MODEL_NOT_READY",
    `no version of model "${modelName}" is live yet; run the pipeline (npm start) or promote a version`,
    {
      details: { model: modelName },
    },
  );
}

async function classify(model: LoadedModel, { input, topK }: PredictRequest): Promise<PredictResponse> {
  const { height = 0, width = 0, channels = 0 } = model.manifest.input ?? {};
  const startedMs = performance.now();
  const pixels = await decodeImage(input.value ?? new Uint8Array(), { height, width, channels });
  const decodedMs = performance.now();
  const { probabilities, durationMs } = await model.worker.run(pixels, 1);
  const endedMs = performance.now();
  return create(PredictResponseSchema, {
    predictions: ranked(probabilities, model.manifest.classes, topK),
    model: servedModel(model),
    timings: {
      decodeMs: decodedMs - startedMs,
      inferenceMs: durationMs,
      queueMs: Math.max(0, endedMs - decodedMs - durationMs),
    },
  });
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

function attributesOf({ version }: LoadedModel) {
  return {
    "millrace.model.name": version.name,
    "millrace.model.version": version.version,
    "millrace.dataset.digest": version.lineage?.datasetDigest ?? "",
  };
}

/** A link to the trace of the run that trained the model: from an answer, one click to where it came from. */
function linksTo({ version }: LoadedModel): Link[] {
  const training = trainingSpan(version);
  return training === undefined
    ? []
    : [{ context: training, attributes: { "millrace.run.id": version.lineage?.runId ?? "" } }];
}

function trainingSpan({ lineage }: ModelVersion): SpanContext | undefined {
  if (!lineage?.traceId || !lineage.spanId) return undefined;
  return { traceId: lineage.traceId, spanId: lineage.spanId, traceFlags: TraceFlags.SAMPLED, isRemote: true };
}

/** The run's trace ends with the first answer of its model, linked to the caller's own trace. */
async function noteFirstAnswer(model: LoadedModel): Promise<void> {
  const parent = model.firstAnswerParent;
  if (parent === undefined) return;
  model.firstAnswerParent = undefined;
  const caller = trace.getActiveSpan()?.spanContext();
  const links = caller === undefined ? [] : [{ context: caller }];
  const settings = { parent: trace.setSpanContext(context.active(), parent), attributes: attributesOf(model), links };
  await withSpan("first prediction", settings, () => undefined);
}

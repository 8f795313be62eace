/** Answering with the model that is live, whichever protocol asks. */
import { context, type Link, type SpanContext, TraceFlags, trace } from "@opentelemetry/api";
import type { ModelVersion } from "../../gen/millrace/v1/model_pb.ts";
import { AppError } from "../../lib/errors.ts";
import { decodeImage } from "../../lib/images/decode-image.ts";
import { withSpan } from "../../lib/telemetry/spans.ts";
import type { Deployment } from "./deployment.ts";
import type { LoadedModel } from "./serving.ts";

/** The model that is live, or the name of the one that is waited for. */
export interface LiveModel {
  readonly deployment: Pick<Deployment, "current" | "batching">;
  /** Name of the model that this service waits for, for the error before it is there. */
  readonly modelName: string;
}

/** Answers with the model that is live now, which stays until it has answered. MODEL_NOT_READY before the first. */
export async function withModel<T>(
  dependencies: LiveModel,
  answerWith: (model: LoadedModel) => Promise<T>,
): Promise<T> {
  const model = requireModel(dependencies);
  using _lease = model.lease();
  const settings = { attributes: attributesOf(model), links: linksTo(model) };
  const answer = await withSpan("classify", settings, () => answerWith(model));
  await noteFirstAnswer(model);
  return answer;
}

/** The model that is live. MODEL_NOT_READY before the first. */
export function requireModel({ deployment, modelName }: LiveModel): LoadedModel {
  const model = deployment.current();
  if (model !== undefined) return model;
  throw new AppError(
    "MODEL_NOT_READY",
    `no version of model "${modelName}" is live yet; run the pipeline (npm start) or promote a version`,
    {
      details: { model: modelName },
    },
  );
}

/** Decodes an image to the pixels that a model takes, uint8 [C, H, W]. */
export function decodeFor({ manifest }: LoadedModel, image: Uint8Array): Promise<Uint8Array> {
  const { height = 0, width = 0, channels = 0 } = manifest.input ?? {};
  return decodeImage(image, { height, width, channels });
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

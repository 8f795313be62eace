/** What the prediction service tells about its queue, its batches and its answers. */
import { type MetricAttributes, observeMetrics, recordMetric } from "./metrics.ts";

/** Classes of a model that are counted by name; the rest share one time series. */
const maxNamedClasses = 100;

export interface DispatchedBatch {
  readonly size: number;
  /** Why it began. */
  readonly reason: "full" | "delay" | "idle";
  /** Of the image that has waited longest. */
  readonly waitedMs: number;
}

/** A batch has left the queue. */
export function recordBatch({ size, reason, waitedMs }: DispatchedBatch): void {
  const attributes = { "millrace.batch.reason": reason };
  recordMetric("millrace.serving.batch.size", size, attributes);
  recordMetric("millrace.serving.queue.duration", waitedMs / 1_000, attributes);
}

/** An image was decoded. */
export function recordDecoding(durationMs: number): void {
  recordMetric("millrace.serving.decode.duration", durationMs / 1_000, {});
}

/** Names a model's version. */
export interface ServedVersion {
  readonly name: string;
  readonly version: number;
}

/** The network has run a batch. */
export function recordInference(version: ServedVersion, durationMs: number): void {
  recordMetric("millrace.serving.inference.duration", durationMs / 1_000, attributesOf(version));
}

/** An image was classified. `classIndex` is the position of the class in the model's list. */
export function recordPrediction(version: ServedVersion, { className, classIndex }: PredictedClass): void {
  const counted = classIndex < maxNamedClasses ? className : "_OTHER";
  recordMetric("millrace.serving.predictions", 1, { ...attributesOf(version), "millrace.class.name": counted });
}

/** The shadow has answered, or could not: `result` is undefined then. `version` is the shadow's. */
export function recordShadow(version: ServedVersion, result: { readonly agrees: boolean } | undefined): void {
  const outcome = result === undefined ? "failed" : result.agrees ? "agreed" : "differed";
  recordMetric("millrace.serving.shadow.images", 1, { ...attributesOf(version), "millrace.shadow.outcome": outcome });
}

/** Somebody said what an image really was. */
export function recordFeedback(version: ServedVersion, correct: boolean): void {
  recordMetric("millrace.serving.feedback", 1, { ...attributesOf(version), "millrace.feedback.correct": correct });
}

/** A window of answers was compared with the data set; `ratio` is the distance over its threshold. */
export function recordDrift(version: ServedVersion, measure: string, ratio: number): void {
  recordMetric("millrace.serving.drift", ratio, { ...attributesOf(version), "millrace.drift.measure": measure });
}

export interface PredictedClass {
  readonly className: string;
  readonly classIndex: number;
}

/** The state of serving, asked for when metrics are collected. */
export interface ServingState {
  readonly queueLength: number;
  readonly queueLimit: number;
  /** The version that answers, if there is one. */
  readonly model?: (ServedVersion & { readonly digest: string }) | undefined;
}

/** Observes queue and model until the function that it returns is called. */
export function observeServing(ask: () => ServingState): () => void {
  /** Every version that has answered: a series that is no longer observed would keep its last value. */
  const seen = new Map<string, MetricAttributes<"millrace.serving.model.info">>();
  return observeMetrics(
    ["millrace.serving.queue.length", "millrace.serving.queue.limit", "millrace.serving.model.info"],
    ({ observe }) => {
      const { queueLength, queueLimit, model } = ask();
      observe("millrace.serving.queue.length", queueLength, {});
      observe("millrace.serving.queue.limit", queueLimit, {});
      for (const attributes of seen.values()) observe("millrace.serving.model.info", 0, attributes);
      if (model === undefined) return;
      const attributes = { ...attributesOf(model), "millrace.model.digest": model.digest };
      seen.set(`${model.name}/${model.version}`, attributes);
      observe("millrace.serving.model.info", 1, attributes);
    },
  );
}

function attributesOf({ name, version }: ServedVersion): MetricAttributes<"millrace.serving.inference.duration"> {
  return { "millrace.model.name": name, "millrace.model.version": version };
}

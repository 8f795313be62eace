/**
 * What was answered, as events: one for the answers of some seconds by one version. Answering waits for none of it; when the broker is
 * away for long, answers are left out of the log rather than kept in memory without end.
 */
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { context, ROOT_CONTEXT } from "@opentelemetry/api";
import {
  PredictionCompletedSchema,
  PredictionDriftSchema,
  type ShadowComparison,
  ShadowComparisonSchema,
} from "../../gen/millrace/v1/events_pb.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import { memoize } from "../../lib/memoize.ts";
import { recordDrift, recordPrediction, recordShadow } from "../../lib/telemetry/serving-metrics.ts";
import { createDriftDetector, type DriftMeasure } from "./drift.ts";
import { createPredictionId } from "./prediction-id.ts";
import type { Classification, LoadedModel } from "./serving.ts";
import { mostProbable, type ShadowResult } from "./shadow.ts";
import { createWorkQueue } from "./work-queue.ts";

export interface AnswerLogOptions {
  readonly bus: Bus;
  readonly artifacts: ArtifactStore;
  /** Which process of the service this is. */
  readonly instanceId: string;
  /** How long answers wait for others before they are published, in milliseconds; 0 publishes none. */
  readonly intervalMs: number;
  /** Share of the answers, 0..1, whose images are kept as artifacts. */
  readonly imageShare: number;
  /** Answers that are compared with the data set at a time; 0 compares none. */
  readonly driftWindow: number;
}

export interface AnswerLog extends AsyncDisposable {
  /** Notes an answer and returns its name. `pixels` are the image's, uint8 [C, H, W]. */
  note(model: LoadedModel, pixels: Uint8Array, answer: Classification): string;
  /** Notes what the shadow said to an image that `model` has classified. */
  noteShadow(model: LoadedModel, shadowVersion: number, result: ShadowResult): void;
}

/** Answers in an event at most, which is then some 40 KB. */
const maxAnswers = 500;
/** Events that wait for the broker at most. */
const maxWaiting = 20;
/** How long the end of the service waits for the last events. */
const flushTimeoutMs = 2_000;

/** An answer until it is told; messages are made when nobody waits for them. */
interface NotedPrediction {
  readonly predictionId: string;
  readonly timeMs: number;
  readonly classIndex: number;
  readonly probability: number;
  readonly imageKept: boolean;
}

/** Answers of one version that are in no event yet. */
interface Batch {
  readonly model: LoadedModel;
  readonly predictions: NotedPrediction[];
  readonly images: Uint8Array[];
  shadow: ShadowComparison | undefined;
}

export function createAnswerLog(options: AnswerLogOptions): AnswerLog {
  const { bus, instanceId, intervalMs, imageShare, driftWindow } = options;
  const ending = new AbortController();
  const queue = createWorkQueue("predictions.unpublished", bus.logger, ending.signal);
  /** By version. */
  const batches = new Map<number, Batch>();
  const detectorOf = memoize((model: LoadedModel) => createDriftDetector(model.version, model.manifest, driftWindow));
  let [waiting, published, lost] = [0, 0, 0];

  const batchOf = (model: LoadedModel): Batch => {
    const { version } = model.version;
    const batch = batches.get(version) ?? { model, predictions: [], images: [], shadow: undefined };
    batches.set(version, batch);
    return batch;
  };

  /** Publishes in the background what `work` makes, unless too much is waiting already. */
  const later = (answers: number, work: () => Promise<void>): void => {
    if (waiting >= maxWaiting) {
      lost += answers;
      return;
    }
    waiting++;
    const done = () => {
      waiting--;
    };
    // Part of no request's trace: an event covers many.
    void context.with(ROOT_CONTEXT, () => queue.add(() => work().finally(done)));
  };

  const publish = (model: LoadedModel, message: Parameters<Bus["publish"]>[0]): Promise<unknown> => {
    const { name, lineage } = model.version;
    const key = `${instanceId} ${Date.now()} ${published++}`;
    return bus.publish(message, { runId: lineage?.runId ?? "", modelName: name, key, signal: ending.signal });
  };

  const flush = (batch: Batch): void => {
    const { model, predictions, images, shadow } = batch;
    batches.delete(model.version.version);
    later(predictions.length, async () => {
      const lostBefore = lost;
      lost = 0;
      try {
        const identity = { modelName: model.version.name, version: model.version.version, instanceId };
        const kept = images.length === 0 ? {} : { images: await keepImages(options.artifacts, images) };
        const event = {
          ...identity,
          predictions: predictions.map(({ timeMs, ...noted }) => ({ ...noted, time: timestampFromMs(timeMs) })),
          lostPredictions: BigInt(lostBefore),
          ...kept,
          ...(shadow && { shadow }),
        };
        await publish(model, create(PredictionCompletedSchema, event));
      } catch (error) {
        lost += lostBefore + predictions.length;
        throw error;
      }
    });
  };
  const flushAll = () => {
    for (const batch of batches.values()) flush(batch);
  };
  const timer = intervalMs > 0 ? setInterval(flushAll, intervalMs).unref() : undefined;

  const watchDrift = (model: LoadedModel, classIndex: number, pixels: Uint8Array): void => {
    if (driftWindow === 0) return;
    const measures = detectorOf(model).add(classIndex, pixels) ?? [];
    for (const { name, distance, threshold } of measures) recordDrift(model.version, name, distance / threshold);
    if (measures.some(({ drifted }) => drifted)) reportDrift(model, measures);
  };

  const reportDrift = (model: LoadedModel, measures: readonly DriftMeasure[]): void => {
    const { name, version } = model.version;
    const drifted = measures.filter((measure) => measure.drifted).map(({ message }) => message);
    const about = { event: "prediction.drift", model: name, version, drifted };
    bus.logger.warn(about, `model ${name} version ${version} sees other images than it was measured on`);
    const identity = { modelName: name, version, instanceId, predictions: driftWindow };
    const event = create(PredictionDriftSchema, { ...identity, measures: [...measures] });
    later(0, async () => {
      await publish(model, event);
    });
  };

  return {
    note(model, pixels, { probabilities }) {
      const classIndex = mostProbable(probabilities);
      const predictionId = createPredictionId({ version: model.version.version, classIndex });
      recordPrediction(model.version, { className: model.manifest.classes[classIndex] ?? "", classIndex });
      watchDrift(model, classIndex, pixels);
      if (intervalMs === 0) return predictionId;
      const batch = batchOf(model);
      const imageKept = Math.random() < imageShare;
      if (imageKept) batch.images.push(pixels);
      const probability = probabilities[classIndex] ?? 0;
      batch.predictions.push({ predictionId, timeMs: Date.now(), classIndex, probability, imageKept });
      if (batch.predictions.length >= maxAnswers) flush(batch);
      return predictionId;
    },
    noteShadow(model, version, result) {
      recordShadow({ name: model.version.name, version }, result);
      if (intervalMs === 0) return;
      const batch = batchOf(model);
      // Of two shadows in one interval the later one is told of.
      if (batch.shadow?.version !== version) batch.shadow = create(ShadowComparisonSchema, { version });
      addResult(batch.shadow, result);
    },
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      flushAll();
      const timeout = setTimeout(() => ending.abort(), flushTimeoutMs);
      await queue.settled();
      clearTimeout(timeout);
    },
  };
}

function addResult(shadow: ShadowComparison, result: ShadowResult): void {
  if (result === undefined) {
    shadow.failed++;
    return;
  }
  shadow.compared++;
  if (result.agrees) shadow.agreed++;
  shadow.meanMaxDifference += (result.maxDifference - shadow.meanMaxDifference) / shadow.compared;
}

/** One artifact for the images of an event, one behind the other. */
function keepImages(artifacts: ArtifactStore, images: readonly Uint8Array[]) {
  return artifacts.put(Buffer.concat(images), { mediaType: "application/octet-stream", name: "images.u8" });
}

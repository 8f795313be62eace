import { create, type JsonObject } from "@bufbuild/protobuf";
import type { Artifact } from "../../gen/millrace/v1/artifact_pb.ts";
import type { DatasetManifest } from "../../gen/millrace/v1/dataset_pb.ts";
import {
  DatasetPreparedSchema,
  ModelTrainedSchema,
  type TrainingEpochCompleted,
  TrainingEpochCompletedSchema,
  TrainingStartedSchema,
} from "../../gen/millrace/v1/events_pb.ts";
import type { ModelVersion } from "../../gen/millrace/v1/model_pb.ts";
import { type EpochMetrics, type TrainingSpec, TrainingSpecSchema } from "../../gen/millrace/v1/training_pb.ts";
import { readBytes } from "../../lib/artifacts/read.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import type { ReceivedEvent } from "../../lib/bus/cloud-event.ts";
import { eventTypeOf } from "../../lib/bus/event-types.ts";
import { orderedPublisher } from "../../lib/bus/ordered-publisher.ts";
import type { Stage } from "../../lib/bus/stage.ts";
import { eventStream, eventSubject } from "../../lib/bus/subjects.ts";
import { AppError } from "../../lib/errors.ts";
import { loadSplit } from "../../lib/images/load-split.ts";
import { readManifest } from "../../lib/images/manifest.ts";
import { checkResumable, decodeCheckpoint } from "../../lib/nn/checkpoint.ts";
import { configFromSpec, defaultNetwork } from "../../lib/nn/config-from-spec.ts";
import type { TrainingConfig } from "../../lib/nn/configuration.ts";
import { engineVersion } from "../../lib/nn/engine.ts";
import { startTraining, type TrainingResult } from "../../lib/nn/training.ts";
import { defaultModelName } from "../../lib/registry/model-log.ts";
import type { ChangeOrigin, Registry } from "../../lib/registry/registry.ts";
import { withSpan } from "../../lib/telemetry/spans.ts";
import { createEpochSpans, epochMetricsFrom } from "./epochs.ts";
import { registerModel } from "./register-model.ts";

export interface TrainingDependencies {
  readonly artifacts: ArtifactStore;
  readonly registry: Registry;
  /** Name of the engine that trains. */
  readonly engine: string;
}

/** A training to do. */
export interface TrainingOrder {
  readonly datasetDigest: string;
  readonly spec: TrainingSpec;
  /** Name under which the model is registered. */
  readonly modelName: string;
  /** Who asks: an event of a run, or a request. */
  readonly origin: ChangeOrigin;
  /** State of an earlier try, from which to go on. */
  readonly checkpoint?: Artifact | undefined;
  readonly signal: AbortSignal;
}

export interface TrainingListeners {
  /** Called before the first step, with the complete hyper-parameters. */
  readonly onStart?: (start: TrainingStart) => Promise<void>;
  /** Called after each epoch, with the state from which to go on after it. */
  readonly onEpoch: (metrics: EpochMetrics, checkpoint: Artifact) => void;
}

export interface TrainingStart {
  readonly network: string;
  readonly hyperparameters: JsonObject;
  readonly trainImages: number;
  readonly engine: string;
}

/** The work of the service: the same for an event and for a request. */
export interface Training {
  /** Trains a network on a data set, stores the model and registers it as a version. */
  train(order: TrainingOrder, listeners: TrainingListeners): Promise<ModelVersion>;
}

export function createTraining(dependencies: TrainingDependencies): Training {
  return {
    train: async (order, listeners) => {
      const network = order.spec.network || defaultNetwork;
      const config = configFromSpec(order.spec);
      const manifest = await readManifest(order.datasetDigest, dependencies);
      const attributes = { "millrace.network.name": network, "millrace.dataset.digest": order.datasetDigest };
      return withSpan("train", { attributes }, async () => {
        const start = { network, hyperparameters: toJsonObject(config), engine: engineVersion(dependencies.engine) };
        await listeners.onStart?.({ ...start, trainImages: manifest.train?.imageCount ?? 0 });
        const result = await runTraining(dependencies, order, { network, config, manifest }, listeners);
        return registerModel(dependencies, order, { manifest, result, ...start });
      });
    },
  };
}

function toJsonObject(config: TrainingConfig): JsonObject {
  return JSON.parse(JSON.stringify(config)) as JsonObject;
}

/** A checkpoint that is lost, damaged or another version's costs time, not the run: then the training begins anew. */
async function usableCheckpoint(
  artifacts: ArtifactStore,
  { checkpoint, signal }: TrainingOrder,
  { network, config, manifest }: ResolvedTraining,
): Promise<Uint8Array | undefined> {
  if (checkpoint === undefined) return undefined;
  try {
    const bytes = await readBytes(artifacts, checkpoint.digest, { signal });
    const { height = 0, width = 0, channels = 0 } = manifest.shape ?? {};
    const data = { classes: manifest.classes, channels, height, width, images: manifest.train?.imageCount ?? 0 };
    checkResumable(decodeCheckpoint(bytes), { network, config, data });
    return bytes;
  } catch (thrown) {
    const unusable: readonly string[] = ["ARTIFACT_NOT_FOUND", "ARTIFACT_CORRUPT", "CONFIGURATION_INVALID"];
    if (unusable.includes(AppError.from(thrown).code)) return undefined;
    throw thrown;
  }
}

interface ResolvedTraining {
  readonly network: string;
  readonly config: TrainingConfig;
  readonly manifest: DatasetManifest;
}

async function runTraining(
  { artifacts, engine }: TrainingDependencies,
  order: TrainingOrder,
  { network, config, manifest }: ResolvedTraining,
  listeners: TrainingListeners,
): Promise<TrainingResult> {
  const { pixels, labels } = await loadSplit(manifest, "train", { artifacts, signal: order.signal });
  const { height = 0, width = 0, channels = 0 } = manifest.shape ?? {};
  const checkpoint = await usableCheckpoint(artifacts, order, { network, config, manifest });
  const epochSpans = createEpochSpans();
  let metrics: EpochMetrics | undefined;
  // Checkpoints are stored one after another, and all of them before the training counts as done.
  let stored: Promise<void> = Promise.resolve();
  const job = startTraining(
    {
      network,
      config,
      engine,
      data: {
        classes: manifest.classes,
        height,
        width,
        channels,
        mean: manifest.channelMeans,
        standardDeviation: manifest.channelDeviations,
        pixels,
        labels,
      },
      ...(checkpoint === undefined ? {} : { checkpoint }),
    },
    {
      onEpoch: (epoch) => {
        metrics = epochMetricsFrom(epoch);
        epochSpans.end(metrics);
      },
      onCheckpoint: (bytes) => {
        const ended = metrics;
        stored = stored.then(async () => {
          const options = { mediaType: "application/octet-stream", name: `checkpoint-${ended?.epoch ?? 0}.bin` };
          const artifact = await artifacts.put(bytes, options);
          if (ended !== undefined) listeners.onEpoch(ended, artifact);
        });
        // Without checkpoints a long training would be at risk for hours: better to stop, and to try again.
        stored.catch(() => void job.cancel());
      },
    },
  );
  const cancel = () => void job.cancel();
  order.signal.addEventListener("abort", cancel, { once: true });
  if (order.signal.aborted) cancel();
  try {
    const result = await job.result;
    await stored;
    return result;
  } catch (thrown) {
    // Whoever stopped it knows why: a cancelled run, a service that is stopping, a checkpoint that could not be stored.
    order.signal.throwIfAborted();
    await stored;
    throw thrown;
  } finally {
    order.signal.removeEventListener("abort", cancel);
    epochSpans.dispose();
  }
}

/** The second stage of a run: from "dataset.prepared" to "model.trained". */
export function trainingStage(training: Training, bus: Bus): Stage<typeof DatasetPreparedSchema> {
  return {
    name: "training",
    consumes: DatasetPreparedSchema,
    outcomes: [ModelTrainedSchema],
    // Each try goes on from the last checkpoint, so being interrupted often is no sign of a message that cannot be handled.
    maxAttempts: 10,
    handle: async (event, context) => {
      const startedMs = performance.now();
      const { dataset, spec } = event.message;
      const earlier = await lastEpochOf(bus, event);
      const epochs = orderedPublisher(context);
      const order: TrainingOrder = {
        datasetDigest: dataset?.digest ?? "",
        spec: spec?.training ?? create(TrainingSpecSchema),
        modelName: spec?.modelName || defaultModelName,
        origin: { runId: context.runId, cause: event, signal: context.signal },
        checkpoint: earlier?.checkpoint,
        signal: context.signal,
      };
      const model = await training.train(order, {
        onStart: async (start) => {
          const resumedEpochs = earlier?.metrics?.epoch ?? 0;
          await context.publish(create(TrainingStartedSchema, { ...start, resumedEpochs }), String(resumedEpochs));
        },
        onEpoch: (metrics, checkpoint) =>
          epochs.publish(create(TrainingEpochCompletedSchema, { metrics, checkpoint }), String(metrics.epoch)),
      });
      await epochs.settled();
      const durationSeconds = (performance.now() - startedMs) / 1000;
      return create(ModelTrainedSchema, { model, durationSeconds, ...(spec === undefined ? {} : { spec }) });
    },
  };
}

/** The last epoch that an earlier try at the same message completed, or undefined. */
async function lastEpochOf(bus: Bus, cause: ReceivedEvent): Promise<TrainingEpochCompleted | undefined> {
  const subject = eventSubject(cause.correlationId, eventTypeOf(TrainingEpochCompletedSchema).options.name);
  const last = await bus.lastEvent(eventStream, subject);
  return last?.causationId === cause.id ? (last.message as TrainingEpochCompleted) : undefined;
}

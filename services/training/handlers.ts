import { create, type JsonObject } from "@bufbuild/protobuf";
import type { Artifact } from "../../gen/millrace/v1/artifact_pb.ts";
import {
  DatasetPreparedSchema,
  ModelTrainedSchema,
  TrainingCheckpointedSchema,
  TrainingEpochCompletedSchema,
  TrainingProgressedSchema,
  TrainingStartedSchema,
} from "../../gen/millrace/v1/events_pb.ts";
import type { ModelVersion } from "../../gen/millrace/v1/model_pb.ts";
import {
  type EpochMetrics,
  type TrainingProgress,
  type TrainingSpec,
  TrainingSpecSchema,
  type TrainingSummary,
} from "../../gen/millrace/v1/training_pb.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import { orderedPublisher } from "../../lib/bus/ordered-publisher.ts";
import { progressPublisher } from "../../lib/bus/progress-publisher.ts";
import type { Stage, StageContext } from "../../lib/bus/stage.ts";
import { AppError } from "../../lib/errors.ts";
import { readManifest } from "../../lib/images/manifest.ts";
import { configFromSpec, defaultNetwork } from "../../lib/nn/config-from-spec.ts";
import type { TrainingConfig } from "../../lib/nn/configuration.ts";
import { engineVersion } from "../../lib/nn/engine.ts";
import { checkTraining, type TrainingPace } from "../../lib/nn/training.ts";
import { defaultModelName } from "../../lib/registry/model-log.ts";
import type { ChangeOrigin, Registry } from "../../lib/registry/registry.ts";
import { withSpan } from "../../lib/telemetry/spans.ts";
import { lastCheckpoint, readCheckpoint, type StoredCheckpoint, type UsableCheckpoint } from "./checkpoints.ts";
import { createTrainingJobs, loadTrainingData, outlineFrom } from "./job.ts";
import { registerModel } from "./register-model.ts";

export interface TrainingDependencies {
  readonly artifacts: ArtifactStore;
  readonly registry: Registry;
  /** Name of the engine that trains. */
  readonly engine: string;
  /** How often trainings report. Default: see there. */
  readonly pace?: TrainingPace;
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
  /** Called before the first step, with the complete hyper-parameters; again where the checkpoint turns out not to fit the network. */
  readonly onStart?: (start: TrainingStart) => Promise<void>;
  /** Called a few times a second while the network is trained. */
  readonly onProgress?: (progress: TrainingProgress) => void;
  /**
   * Called for each epoch, in order, once its state or a newer one is stored: with the state from which to go on so that each epoch after this
   * one is told of. Epochs that end faster than they can be stored are told of together.
   */
  readonly onEpoch: (metrics: EpochMetrics, checkpoint: Artifact) => void;
  /** Called when the state within an epoch is stored. */
  readonly onCheckpoint?: (checkpoint: StoredCheckpoint) => void;
}

export interface TrainingStart {
  readonly network: string;
  readonly hyperparameters: JsonObject;
  readonly trainImages: number;
  readonly engine: string;
  /** Epochs, and steps of the next one, that the checkpoint has brought along. */
  readonly resumedEpochs: number;
  readonly resumedSteps: number;
}

/** What comes of a training. */
export interface TrainedVersion {
  readonly model: ModelVersion;
  readonly summary: TrainingSummary;
}

/** The work of the service: the same for an event and for a request. */
export interface Training {
  /** Trains a network on a data set, stores the model and registers it as a version. */
  train(order: TrainingOrder, listeners: TrainingListeners): Promise<TrainedVersion>;
}

export function createTraining(dependencies: TrainingDependencies): Training {
  const { artifacts } = dependencies;
  const jobs = createTrainingJobs(dependencies);
  return {
    train: async (order, listeners) => {
      const network = order.spec.network || defaultNetwork;
      const config = configFromSpec(order.spec);
      const manifest = await readManifest(order.datasetDigest, dependencies);
      const resolved = { network, config, manifest, signal: order.signal };
      // Before anything is read or told: nobody shall wait for what cannot be.
      checkTraining({ network, config, engine: dependencies.engine, data: outlineFrom(manifest) });
      const attributes = { "millrace.network.name": network, "millrace.dataset.digest": order.datasetDigest };
      return withSpan("train", { attributes }, async () => {
        const data = await loadTrainingData(artifacts, resolved);
        const checkpoint = await readCheckpoint(artifacts, order.checkpoint, resolved);
        const start = { network, hyperparameters: toJsonObject(config), engine: engineVersion(dependencies.engine) };
        const trainImages = manifest.train?.imageCount ?? 0;
        const run = async (from: UsableCheckpoint | undefined) => {
          const { epochs: resumedEpochs = 0, steps: resumedSteps = 0 } = from?.position ?? {};
          await listeners.onStart?.({ ...start, trainImages, resumedEpochs, resumedSteps });
          return jobs.run({ training: resolved, data, checkpoint: from, listeners });
        };
        const result = await run(checkpoint).catch((thrown: unknown) => {
          // Another version built the network otherwise under the same name. That costs time, not the run.
          if (checkpoint === undefined || AppError.from(thrown).code !== "ARTIFACT_CORRUPT") throw thrown;
          return run(undefined);
        });
        return registerModel(dependencies, order, { manifest, result, ...start });
      });
    },
  };
}

function toJsonObject(config: TrainingConfig): JsonObject {
  return JSON.parse(JSON.stringify(config)) as JsonObject;
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
      const order: TrainingOrder = {
        datasetDigest: dataset?.digest ?? "",
        spec: spec?.training ?? create(TrainingSpecSchema),
        modelName: spec?.modelName || defaultModelName,
        origin: { runId: context.runId, cause: event, signal: context.signal, patient: true },
        checkpoint: await lastCheckpoint(bus, event),
        signal: context.signal,
      };
      const { listeners, settled } = publishingListeners(context);
      const trained = await training.train(order, listeners).catch(async (thrown: unknown) => {
        // A checkpoint that was stored at the last moment is worth nothing unless an event names it.
        await settled().catch(() => undefined);
        throw thrown;
      });
      await settled();
      const durationSeconds = (performance.now() - startedMs) / 1000;
      return create(ModelTrainedSchema, { ...trained, durationSeconds, ...(spec === undefined ? {} : { spec }) });
    },
  };
}

/** What happens in a training, as events of its run. */
function publishingListeners(context: StageContext): { listeners: TrainingListeners; settled(): Promise<void> } {
  const milestones = orderedPublisher(context);
  const reports = progressPublisher(context);
  return {
    listeners: {
      onStart: async (start) => {
        const key = `${context.attempt}:${start.resumedEpochs}:${start.resumedSteps}`;
        await context.publish(create(TrainingStartedSchema, start), key);
      },
      onProgress: (progress) =>
        reports.publish(create(TrainingProgressedSchema, { progress }), `${progress.epoch?.epoch}:${progress.step}`),
      onEpoch: (metrics, checkpoint) =>
        milestones.publish(create(TrainingEpochCompletedSchema, { metrics, checkpoint }), String(metrics.epoch)),
      onCheckpoint: ({ artifact: checkpoint, position }) =>
        milestones.publish(
          create(TrainingCheckpointedSchema, { ...position, checkpoint }),
          `${position.epochs}:${position.steps}`,
        ),
    },
    settled: async () => {
      await milestones.settled();
      await reports.settled();
    },
  };
}

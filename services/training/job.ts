import type { DatasetManifest } from "../../gen/millrace/v1/dataset_pb.ts";
import { onAbort, orAborted } from "../../lib/abort.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import { loadSplit } from "../../lib/images/load-split.ts";
import type { TrainingConfig } from "../../lib/nn/configuration.ts";
import { startTraining, type TrainingJob, type TrainingResult } from "../../lib/nn/training.ts";
import type { DataOutline, TrainingData } from "../../lib/nn/training-data.ts";
import {
  type CheckpointWriter,
  createCheckpointWriter,
  createMilestones,
  type UsableCheckpoint,
} from "./checkpoints.ts";
import {
  createEpochSpans,
  epochMetricsFrom,
  progressFrom,
  recordTraining,
  recordTrainingEnd,
} from "./epoch-metrics.ts";
import type { TrainingDependencies, TrainingListeners } from "./handlers.ts";

/** A training whose data set and configuration are known. */
export interface ResolvedTraining {
  readonly network: string;
  readonly config: TrainingConfig;
  readonly manifest: DatasetManifest;
  readonly signal: AbortSignal;
}

export interface TrainingJobOptions {
  readonly training: ResolvedTraining;
  readonly data: TrainingData;
  /** State from which to go on. */
  readonly checkpoint: UsableCheckpoint | undefined;
  readonly listeners: TrainingListeners;
}

/** Runs trainings, each in a thread of its own. */
export interface TrainingJobs {
  /** With a span for each epoch, and every checkpoint stored before it is told of. Lets go at once when the signal aborts. */
  run(options: TrainingJobOptions): Promise<TrainingResult>;
}

/** How long a training that is given up waits for a checkpoint that is being stored. */
const lastWriteMs = 1_000;

export function createTrainingJobs(dependencies: TrainingDependencies): TrainingJobs {
  // A thread that was told to end is in its last step for a while, and holds its memory: the next one starts after it.
  let leaving: Promise<unknown> = Promise.resolve();
  return {
    async run(options) {
      const { network, signal } = options.training;
      await orAborted(leaving, signal);
      const { job, checkpoints, epochSpans } = startJob(dependencies, options);
      const stopListening = onAbort(signal, () => void job.cancel());
      try {
        const result = await job.result;
        await settle(checkpoints, signal);
        return result;
      } catch (thrown) {
        // Whoever stopped it knows why: a cancelled run, a service that is stopping, a checkpoint that could not be stored.
        await settle(checkpoints, signal);
        throw thrown;
      } finally {
        stopListening();
        leaving = Promise.all([leaving, job.cancel()]).then(() => undefined);
        epochSpans.dispose();
        recordTrainingEnd(network);
      }
    },
  };
}

function startJob(
  { artifacts, engine, pace }: TrainingDependencies,
  { training: { network, config }, data, checkpoint, listeners }: TrainingJobOptions,
) {
  const epochSpans = createEpochSpans();
  const milestones = createMilestones(listeners, checkpoint?.artifact);
  const checkpoints = createCheckpointWriter(artifacts, {
    onStored: milestones.stored,
    // Without checkpoints a long training would be at risk for hours: better to stop, and to try again.
    onFailure: () => void job.cancel(),
  });
  const given = { ...(checkpoint && { checkpoint: checkpoint.bytes }), ...(pace && { pace }) };
  const job: TrainingJob = startTraining(
    { network, config, engine, data, ...given },
    {
      onProgress(progress) {
        epochSpans.begin((1000 * progress.step * config.batchSize) / progress.imagesPerSecond);
        recordTraining(network, progress);
        listeners.onProgress?.(progressFrom(progress));
      },
      onEpoch(epoch) {
        recordTraining(network, epoch);
        const metrics = epochMetricsFrom(epoch);
        epochSpans.end(metrics);
        milestones.ended(metrics);
      },
      onCheckpoint: checkpoints.write,
    },
  );
  return { job, checkpoints, epochSpans };
}

/** Waits until the newest checkpoint is stored, which says that it could not be; only for a moment where the training is given up. */
async function settle(checkpoints: CheckpointWriter, signal: AbortSignal): Promise<void> {
  if (!signal.aborted) return orAborted(checkpoints.settled(), signal);
  await orAborted(checkpoints.settled(), AbortSignal.timeout(lastWriteMs)).catch(() => undefined);
  signal.throwIfAborted();
}

/** What the manifest says of the images to train on. */
export function outlineFrom(manifest: DatasetManifest): DataOutline {
  const { classes, shape, channelMeans: mean, channelDeviations: standardDeviation, train } = manifest;
  const { height = 0, width = 0, channels = 0 } = shape ?? {};
  return { classes, height, width, channels, mean, standardDeviation, classCounts: train?.classCounts ?? [] };
}

/** The training split of the data set, decoded. */
export async function loadTrainingData(
  artifacts: ArtifactStore,
  { manifest, signal }: ResolvedTraining,
): Promise<TrainingData> {
  const { pixels, labels } = await loadSplit(manifest, "train", { artifacts, signal });
  const { classCounts: _, ...outline } = outlineFrom(manifest);
  return { ...outline, pixels, labels };
}

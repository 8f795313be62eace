import type { DatasetManifest } from "../../gen/millrace/v1/dataset_pb.ts";
import type { EpochMetrics } from "../../gen/millrace/v1/training_pb.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import { AppError } from "../../lib/errors.ts";
import { loadSplit } from "../../lib/images/load-split.ts";
import type { TrainingConfig } from "../../lib/nn/configuration.ts";
import { startTraining, type TrainingJob, type TrainingResult } from "../../lib/nn/training.ts";
import type { TrainingData } from "../../lib/nn/training-data.ts";
import {
  type CheckpointWriter,
  createCheckpointWriter,
  type StoredCheckpoint,
  type UsableCheckpoint,
} from "./checkpoints.ts";
import { createEpochSpans, epochMetricsFrom, progressFrom } from "./epochs.ts";
import type { TrainingDependencies, TrainingListeners } from "./handlers.ts";

/** A training whose data set and configuration are known. */
export interface ResolvedTraining {
  readonly network: string;
  readonly config: TrainingConfig;
  readonly manifest: DatasetManifest;
  readonly signal: AbortSignal;
}

/** Runs a training in its thread, with a span for each epoch and every checkpoint stored before it is told of. */
export async function runTrainingJob(
  { artifacts, engine }: Pick<TrainingDependencies, "artifacts" | "engine">,
  training: ResolvedTraining,
  checkpoint: UsableCheckpoint | undefined,
  listeners: TrainingListeners,
): Promise<TrainingResult> {
  const { network, config, signal } = training;
  const data = await loadTrainingData(artifacts, training);
  // Without checkpoints a long training would be at risk for hours: better to stop, and to try again.
  const checkpoints = createCheckpointWriter(artifacts, checkpoint, () => void job.cancel());
  const epochSpans = createEpochSpans();
  let ended: EpochMetrics | undefined;
  const job: TrainingJob = startTraining(
    { network, config, engine, data, ...(checkpoint && { checkpoint: checkpoint.bytes }) },
    {
      onProgress: (progress) => listeners.onProgress?.(progressFrom(progress)),
      onEpoch: (epoch) => {
        ended = epochMetricsFrom(epoch);
        epochSpans.end(ended);
      },
      onCheckpoint: (bytes, position) => {
        const epoch = position.steps === 0 ? ended : undefined;
        checkpoints.write(bytes, position, (stored) => {
          if (epoch === undefined) listeners.onCheckpoint?.(stored);
          else listeners.onEpoch(epoch, stored.artifact);
        });
      },
    },
  );
  const cancel = () => void job.cancel();
  signal.addEventListener("abort", cancel, { once: true });
  if (signal.aborted) cancel();
  try {
    const result = await job.result;
    await checkpoints.settled();
    return result;
  } catch (thrown) {
    // Whoever stopped it knows why: a cancelled run, a service that is stopping, a checkpoint that could not be stored.
    signal.throwIfAborted();
    await checkpoints.settled();
    throw withCheckpoint(thrown, checkpoints);
  } finally {
    signal.removeEventListener("abort", cancel);
    epochSpans.dispose();
  }
}

async function loadTrainingData(
  artifacts: ArtifactStore,
  { manifest, signal }: ResolvedTraining,
): Promise<TrainingData> {
  const { pixels, labels } = await loadSplit(manifest, "train", { artifacts, signal });
  const { classes, shape, channelMeans: mean, channelDeviations: standardDeviation } = manifest;
  const { height = 0, width = 0, channels = 0 } = shape ?? {};
  return { classes, height, width, channels, mean, standardDeviation, pixels, labels };
}

/** A training that diverged names its last good checkpoint: the state before is of use. */
function withCheckpoint(thrown: unknown, checkpoints: CheckpointWriter): AppError {
  const error = AppError.from(thrown);
  if (error.code !== "TRAINING_DIVERGED") return error;
  const message = `${error.message}; ${describe(checkpoints.last())}`;
  return new AppError(error.code, message, { details: error.details, cause: thrown });
}

function describe(last: StoredCheckpoint | undefined): string {
  if (last === undefined) return "there is no checkpoint from before";
  const { epochs, steps } = last.position;
  return `the last good checkpoint, after ${epochs} epochs and ${steps} steps, is artifact ${last.artifact.digest}`;
}

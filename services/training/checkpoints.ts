import type { Artifact } from "../../gen/millrace/v1/artifact_pb.ts";
import {
  type TrainingCheckpointed,
  TrainingCheckpointedSchema,
  type TrainingEpochCompleted,
  TrainingEpochCompletedSchema,
} from "../../gen/millrace/v1/events_pb.ts";
import type { EpochMetrics } from "../../gen/millrace/v1/training_pb.ts";
import { readBytes } from "../../lib/artifacts/read.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import type { ReceivedEvent } from "../../lib/bus/cloud-event.ts";
import { eventTypeOf } from "../../lib/bus/event-types.ts";
import { eventStream, eventSubject } from "../../lib/bus/subjects.ts";
import { AppError } from "../../lib/errors.ts";
import { checkResumable, decodeCheckpoint } from "../../lib/nn/checkpoint.ts";
import type { CheckpointPosition } from "../../lib/nn/training.ts";
import { withSpan } from "../../lib/telemetry/spans.ts";
import type { TrainingListeners } from "./handlers.ts";
import type { ResolvedTraining } from "./job.ts";

/** A stored checkpoint. */
export interface StoredCheckpoint {
  readonly artifact: Artifact;
  readonly position: CheckpointPosition;
}

/** A checkpoint that a training can go on from. */
export interface UsableCheckpoint extends StoredCheckpoint {
  readonly bytes: Uint8Array;
}

/** The newest checkpoint that an earlier try at the same message has stored, be it after an epoch or within one. */
export async function lastCheckpoint(bus: Bus, cause: ReceivedEvent): Promise<Artifact | undefined> {
  const events = await Promise.all(
    [TrainingEpochCompletedSchema, TrainingCheckpointedSchema].map((schema) =>
      bus.lastEvent(eventStream, eventSubject(cause.correlationId, eventTypeOf(schema).options.name)),
    ),
  );
  const [newest] = events
    .filter((event) => event?.causationId === cause.id)
    .sort((a, b) => (b?.sequence ?? 0) - (a?.sequence ?? 0));
  return (newest?.message as TrainingEpochCompleted | TrainingCheckpointed | undefined)?.checkpoint;
}

/**
 * A checkpoint that is lost, damaged or in another version's format costs time, not the run: it is undefined, and the training begins anew.
 * Whether its tensors are the network's shows only when that is built, in the training's thread.
 */
export async function readCheckpoint(
  artifacts: ArtifactStore,
  artifact: Artifact | undefined,
  { network, config, manifest, signal }: ResolvedTraining,
): Promise<UsableCheckpoint | undefined> {
  if (artifact === undefined) return undefined;
  try {
    // As large as the training that wrote it, which has to fit into memory anyway.
    const bytes = await withSpan("read checkpoint", {}, () =>
      readBytes(artifacts, artifact.digest, { signal, maxBytes: Number.POSITIVE_INFINITY }),
    );
    const { height = 0, width = 0, channels = 0 } = manifest.shape ?? {};
    const data = { classes: manifest.classes, channels, height, width, images: manifest.train?.imageCount ?? 0 };
    const checkpoint = decodeCheckpoint(bytes);
    checkResumable(checkpoint, { network, config, data });
    return { bytes, artifact, position: { epochs: checkpoint.epochs.length, steps: checkpoint.sums.steps } };
  } catch (thrown) {
    const unusable: readonly string[] = ["ARTIFACT_NOT_FOUND", "ARTIFACT_CORRUPT", "CONFIGURATION_INVALID"];
    if (unusable.includes(AppError.from(thrown).code)) return undefined;
    throw thrown;
  }
}

/**
 * Stores checkpoints beside the training that makes them, which does not wait: one is stored at a time, and one waits. A newer one takes the
 * place of the one that waits, so that a slow store neither fills the memory nor falls behind.
 */
export interface CheckpointWriter {
  /** Takes a checkpoint to store, which may be left out for a newer one. */
  write(bytes: Uint8Array, position: CheckpointPosition): void;
  /** Resolves when the newest is stored, rejects with the first error. */
  settled(): Promise<void>;
}

export interface CheckpointWriterListeners {
  /** Called when one is stored. */
  onStored(stored: StoredCheckpoint): void;
  /** Called when one could not be stored; none is after that. */
  onFailure(): void;
}

export function createCheckpointWriter(
  artifacts: ArtifactStore,
  listeners: CheckpointWriterListeners,
): CheckpointWriter {
  let waiting: { readonly bytes: Uint8Array; readonly position: CheckpointPosition } | undefined;
  let work: Promise<void> = Promise.resolve();
  const storeWaiting = async (): Promise<void> => {
    if (waiting === undefined) return;
    const { bytes, position } = waiting;
    waiting = undefined;
    const name = `checkpoint-${position.epochs}-${position.steps}.bin`;
    const attributes = { "millrace.checkpoint.epochs": position.epochs, "millrace.checkpoint.steps": position.steps };
    const artifact = await withSpan("store checkpoint", { attributes }, () =>
      artifacts.put(bytes, { mediaType: "application/octet-stream", name }),
    );
    listeners.onStored({ artifact, position });
  };
  return {
    write(bytes, position) {
      const isNext = waiting === undefined;
      waiting = { bytes, position };
      if (!isNext) return;
      work = work.then(storeWaiting);
      work.catch(listeners.onFailure);
    },
    settled: () => work,
  };
}

/** Tells of epochs and of checkpoints, in their order. */
export interface Milestones {
  /** An epoch has ended. It is told of when its checkpoint is stored, or a newer one. */
  ended(metrics: EpochMetrics): void;
  stored(checkpoint: StoredCheckpoint): void;
}

/** `newest` is the checkpoint that the training has gone on from. */
export function createMilestones(
  listeners: Pick<TrainingListeners, "onEpoch" | "onCheckpoint">,
  newest: Artifact | undefined,
): Milestones {
  let untold: EpochMetrics[] = [];
  return {
    ended: (metrics) => untold.push(metrics),
    stored(checkpoint) {
      const { artifact, position } = checkpoint;
      const covered = untold.filter(({ epoch }) => epoch <= position.epochs);
      untold = untold.slice(covered.length);
      for (const metrics of covered) {
        // Epochs before the last have the earlier checkpoint: if the process dies right here, the rest are trained, and told of, again.
        listeners.onEpoch(metrics, metrics === covered.at(-1) ? artifact : (newest ?? artifact));
      }
      if (position.steps > 0) listeners.onCheckpoint?.(checkpoint);
      newest = artifact;
    },
  };
}

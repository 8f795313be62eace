import type { Artifact } from "../../gen/millrace/v1/artifact_pb.ts";
import {
  type TrainingCheckpointed,
  TrainingCheckpointedSchema,
  type TrainingEpochCompleted,
  TrainingEpochCompletedSchema,
} from "../../gen/millrace/v1/events_pb.ts";
import { readBytes } from "../../lib/artifacts/read.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import type { ReceivedEvent } from "../../lib/bus/cloud-event.ts";
import { eventTypeOf } from "../../lib/bus/event-types.ts";
import { eventStream, eventSubject } from "../../lib/bus/subjects.ts";
import { AppError } from "../../lib/errors.ts";
import { checkResumable, decodeCheckpoint } from "../../lib/nn/checkpoint.ts";
import type { CheckpointPosition } from "../../lib/nn/training.ts";
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

/** A checkpoint that is lost, damaged or another version's costs time, not the run: it is undefined, and the training begins anew. */
export async function readCheckpoint(
  artifacts: ArtifactStore,
  artifact: Artifact | undefined,
  { network, config, manifest, signal }: ResolvedTraining,
): Promise<UsableCheckpoint | undefined> {
  if (artifact === undefined) return undefined;
  try {
    const bytes = await readBytes(artifacts, artifact.digest, { signal });
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

/** Stores checkpoints one after another, each before the next, beside the training that makes them. */
export interface CheckpointWriter {
  /** Queues one, and calls back when it is stored. */
  write(bytes: Uint8Array, position: CheckpointPosition, onStored: (stored: StoredCheckpoint) => void): void;
  /** The last one that is stored; at first the one that the training went on from. */
  last(): StoredCheckpoint | undefined;
  /** Resolves when all are stored, rejects with the first error. */
  settled(): Promise<void>;
}

/** `onFailure` is told when one could not be stored. */
export function createCheckpointWriter(
  artifacts: ArtifactStore,
  first: StoredCheckpoint | undefined,
  onFailure: () => void,
): CheckpointWriter {
  let last = first;
  let queue: Promise<void> = Promise.resolve();
  return {
    write(bytes, position, onStored) {
      queue = queue.then(async () => {
        const name = `checkpoint-${position.epochs}-${position.steps}.bin`;
        last = { artifact: await artifacts.put(bytes, { mediaType: "application/octet-stream", name }), position };
        onStored(last);
      });
      queue.catch(onFailure);
    },
    last: () => last,
    settled: () => queue,
  };
}

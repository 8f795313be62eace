/** Checkpoints between a training that does not wait and a store that takes its time. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { type Artifact, ArtifactSchema } from "../../../gen/millrace/v1/artifact_pb.ts";
import { EpochMetricsSchema } from "../../../gen/millrace/v1/training_pb.ts";
import type { ArtifactStore } from "../../../lib/artifacts/store.ts";
import {
  createCheckpointWriter,
  createMilestones,
  type StoredCheckpoint,
} from "../../../services/training/checkpoints.ts";

const bytes = Uint8Array.of(1);
const artifactOf = (name: string): Artifact => create(ArtifactSchema, { name });
const metricsOf = (epoch: number) => create(EpochMetricsSchema, { epoch });
const storedAt = (epochs: number, steps = 0): StoredCheckpoint => ({
  artifact: artifactOf(`checkpoint-${epochs}-${steps}.bin`),
  position: { epochs, steps },
});

/** A store whose writes end when the test says so. */
function slowStore() {
  const writes: { name: string; end(): void; fail(error: Error): void }[] = [];
  const put = (_source: unknown, { name = "" }: { name?: string }): Promise<Artifact> =>
    new Promise((resolve, reject) => writes.push({ name, end: () => resolve(artifactOf(name)), fail: reject }));
  return { writes, artifacts: { put } as unknown as ArtifactStore };
}

/** Lets everything happen that waits for nothing but its turn. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("one checkpoint is stored at a time, and of those that come meanwhile only the newest", async () => {
  const { writes, artifacts } = slowStore();
  const stored: string[] = [];
  const onStored = ({ artifact }: StoredCheckpoint): void => void stored.push(artifact.name);
  const writer = createCheckpointWriter(artifacts, { onStored, onFailure: () => assert.fail("nothing fails") });
  for (const epochs of [1, 2, 3]) writer.write(bytes, { epochs, steps: 0 });
  await turn();
  for (const epochs of [4, 5]) writer.write(bytes, { epochs, steps: 0 });
  await turn();
  assert.deepEqual(
    writes.map(({ name }) => name),
    ["checkpoint-3-0.bin"],
  );
  writes[0]?.end();
  await turn();
  writes[1]?.end();
  await writer.settled();
  assert.deepEqual(stored, ["checkpoint-3-0.bin", "checkpoint-5-0.bin"]);
});

test("a checkpoint that cannot be stored is told of, and none is stored after it", async () => {
  const { writes, artifacts } = slowStore();
  let failures = 0;
  const writer = createCheckpointWriter(artifacts, {
    onStored: () => assert.fail("nothing is stored"),
    onFailure: () => failures++,
  });
  writer.write(bytes, { epochs: 1, steps: 0 });
  await turn();
  writes[0]?.fail(new Error("no room"));
  await assert.rejects(writer.settled(), /no room/);
  writer.write(bytes, { epochs: 2, steps: 0 });
  await assert.rejects(writer.settled(), /no room/);
  assert.equal(writes.length, 1);
  assert.ok(failures > 0);
});

test("every epoch is told of, in order, when its checkpoint is stored or a newer one", () => {
  const told: string[] = [];
  const milestones = createMilestones(
    {
      onEpoch: ({ epoch }, { name }) => told.push(`epoch ${epoch}: ${name}`),
      onCheckpoint: ({ artifact }) => told.push(artifact.name),
    },
    undefined,
  );
  milestones.ended(metricsOf(1));
  milestones.stored(storedAt(1));
  for (const epoch of [2, 3, 4]) milestones.ended(metricsOf(epoch));
  milestones.stored(storedAt(3));
  milestones.stored(storedAt(4, 7));
  assert.deepEqual(told, [
    "epoch 1: checkpoint-1-0.bin",
    // A process that dies here goes on from before epoch 3, which is not told of yet.
    "epoch 2: checkpoint-1-0.bin",
    "epoch 3: checkpoint-3-0.bin",
    "epoch 4: checkpoint-4-7.bin",
    "checkpoint-4-7.bin",
  ]);
});

test("a training that goes on from a checkpoint names that one until it has stored another", () => {
  const told: string[] = [];
  const milestones = createMilestones({ onEpoch: (_, { name }) => told.push(name) }, artifactOf("earlier"));
  for (const epoch of [5, 6]) milestones.ended(metricsOf(epoch));
  milestones.stored(storedAt(6));
  assert.deepEqual(told, ["earlier", "checkpoint-6-0.bin"]);
});

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import type { RunEvent } from "../../gen/millrace/v1/pipeline_pb.ts";
import { RunStatus } from "../../gen/millrace/v1/pipeline_pb.ts";
import type { ServiceName } from "../../lib/config.ts";
import { eventually } from "../helpers/bus.ts";
import { smallRun, startPlatform } from "../helpers/platform.ts";

/** The event at which each service is killed: the first sign that it is in the middle of its work. */
const killAt: Partial<Record<NonNullable<RunEvent["event"]["case"]>, ServiceName>> = {
  datasetStarted: "ingestion",
  datasetPrepared: "pipeline",
  trainingEpochCompleted: "training",
  evaluationStarted: "evaluation",
  modelPromoted: "prediction",
};

const epochs = 16;

test("a run ends the same, with each effect once, though every service is killed in the middle of its stage", async (t) => {
  const platform = await startPlatform(t, { MILLRACE_ACK_WAIT_MS: "1500" });
  const killed = new Set<ServiceName>();
  // Long enough that a stage is still at work when the news of its beginning has come round and the kill arrives.
  const dataset = { ...smallRun.dataset, limitPerClass: 60 };
  const spec = { ...smallRun, dataset, training: { ...smallRun.training, epochs } };
  const { run } = await platform.run({ spec }, async ({ event }) => {
    const victim = event.case && killAt[event.case];
    if (victim === undefined || killed.has(victim)) return;
    killed.add(victim);
    await platform.kill(victim);
  });

  assert.deepEqual([...killed].sort(), ["evaluation", "ingestion", "pipeline", "prediction", "training"]);
  assert.equal(run.status, RunStatus.SUCCEEDED, run.failure?.message);
  for (const stage of ["ingestion", "training", "evaluation"] as const) {
    assert.ok((await attempts(platform.folders.logs, stage)) >= 2, `the kill interrupted ${stage} at its work`);
  }
  await platform.answersWith(1);
  assert.equal(platform.restarts.length, 5, platform.restarts.join("\n"));
  const events = await eventually("the deployment is told", async () => {
    const all = await platform.events(run.runId);
    return all.some(({ event }) => event.case === "modelDeployed") && all;
  });

  const counts = countByKind(events);
  for (const kind of [
    "runRequested",
    "datasetPrepared",
    "modelTrained",
    "modelEvaluated",
    "modelPromoted",
    "modelDeployed",
  ]) {
    assert.equal(counts.get(kind), 1, `${kind}: ${counts.get(kind)}`);
  }
  assert.equal(counts.get("runFailed"), undefined);
  const resumed = events.flatMap(({ event }) => (event.case === "trainingStarted" ? [event.value.resumedEpochs] : []));
  assert.equal(resumed.length, 2, "the training began twice");
  assert.ok((resumed[1] ?? 0) >= 1, "and went on from a checkpoint the second time");
  const completed = events.flatMap(({ event }) =>
    event.case === "trainingEpochCompleted" ? [event.value.metrics?.epoch] : [],
  );
  assert.deepEqual(
    completed,
    Array.from({ length: epochs }, (_, index) => index + 1),
    "each epoch is completed once, across the two tries",
  );
  assert.equal(new Set(events.map(({ id }) => id)).size, events.length, "no event is stored twice");

  const { versions } = await platform.registry.listModelVersions({ name: "default" });
  assert.equal(versions.length, 1, "one model is registered");
  const { moves } = await platform.registry.listAliasMoves({ name: "default" });
  assert.deepEqual(
    moves.map(({ version }) => version),
    [1],
    "one model is promoted",
  );

  const undisturbed = await platform.run({ spec });
  assert.equal(undisturbed.run.dataset?.digest, run.dataset?.digest, "the data set is the same as without kills");
  const again = await platform.registry.getModelVersion({ name: "default", selector: { case: "version", value: 2 } });
  assert.deepEqual(
    await modelDigests(platform.folders.artifacts, again.version?.digest),
    await modelDigests(platform.folders.artifacts, versions[0]?.digest),
    "the training that was killed and resumed gives the same weights, bit for bit",
  );
});

/** The most tries that a stage has begun at one message, from its log. */
async function attempts(logs: string, stage: ServiceName): Promise<number> {
  const lines = (await readFile(join(logs, `${stage}.jsonl`), "utf8")).split("\n");
  const begun = lines.filter((line) => line.includes('"stage.started"'));
  return Math.max(0, ...begun.map((line) => (JSON.parse(line) as { attempt: number }).attempt));
}

function countByKind(events: readonly RunEvent[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { event } of events) if (event.case) counts.set(event.case, (counts.get(event.case) ?? 0) + 1);
  return counts;
}

/** Digests of a model's parts: the manifest itself differs by the run that it names. */
async function modelDigests(artifactFolder: string, digest = "") {
  const { openFolderStore } = await import("../../lib/artifacts/folder-store.ts");
  const { readJson } = await import("../../lib/artifacts/read.ts");
  await using artifacts = await openFolderStore(artifactFolder);
  const manifest = (await readJson(artifacts, digest)) as Record<"onnx" | "layersWeights", { digest: string }>;
  return [manifest.onnx.digest, manifest.layersWeights.digest];
}

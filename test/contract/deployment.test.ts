/** What a prediction service does about the model that answers, with a real broker and real inference threads. */
import assert from "node:assert/strict";
import { cp } from "node:fs/promises";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import type { PredictionLoadFailed } from "../../gen/millrace/v1/events_pb.ts";
import { LineageSchema, type ModelVersion } from "../../gen/millrace/v1/model_pb.ts";
import { openFolderStore } from "../../lib/artifacts/folder-store.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import { predictionStream, predictionSubject } from "../../lib/bus/subjects.ts";
import { type ChangeOrigin, createRegistry, type Registry } from "../../lib/registry/registry.ts";
import { type DeploymentOptions, followAliases } from "../../services/prediction/deployment.ts";
import { eventually, openTestBus, storedEvents } from "../helpers/bus.ts";
import { startNats } from "../helpers/nats-server.ts";
import { storeModel } from "../helpers/served-model.ts";
import { tempFolder } from "../helpers/temp-folder.ts";
import { collectThreads } from "../helpers/threads.ts";

const batching = { maxBatchSize: 8, maxDelayMs: 0, maxQueueLength: 100, maxWaitMs: 60_000 };

const pixels = async () => new Uint8Array(16 * 16 * 3);
const from = (id: string): ChangeOrigin => ({ runId: "", cause: { id, originTraceparent: "" } });

function options(bus: Bus, artifacts: ArtifactStore): DeploymentOptions {
  const cacheBytes = 2 ** 40;
  return { bus, artifacts, modelName: "test", instanceId: "i1", batching, cacheBytes, onServing: () => undefined };
}

function register(registry: Registry, { name, digest, manifest }: ModelVersion, cause: string) {
  return registry.register({ name, digest, manifest, lineage: create(LineageSchema) }, from(cause));
}

test("when the thread of the model that answers dies, health says so until the model is there again", async (t) => {
  const threads = collectThreads(t);
  const nats = await startNats(t);
  await using bus = await openTestBus(nats);
  await using artifacts = await openFolderStore(await tempFolder(t));
  const registry = createRegistry(bus);
  await register(registry, await storeModel(artifacts), "c1");
  await registry.moveAlias({ modelName: "test", version: 1, reason: "the first" }, from("c1"));

  const serving: boolean[] = [];
  const onServing = (now: boolean) => serving.push(now);
  await using deployment = followAliases({ ...options(bus, artifacts), onServing });
  await deployment.ready;
  const first = deployment.live("champion");
  assert.ok(first);
  const { output } = await first.classify(pixels);

  deployment.batching = { ...batching, maxBatchSize: 3 };
  const waiting = first.classify(pixels).catch((error: unknown) => error);
  for (const thread of threads) await thread.terminate();
  const second = await eventually("the model is loaded again", () => {
    const model = deployment.live("champion");
    return model !== first && model;
  });
  assert.deepEqual(serving, [true, false, true]);
  assert.deepEqual((await second.classify(pixels)).output.probabilities, output.probabilities);
  assert.equal(deployment.batching.maxBatchSize, 3);
  // What was under way is answered one way or the other; the error says to come again.
  const settled = await waiting;
  if (settled instanceof Error) assert.equal((settled as Error & { code?: string }).code, "MODEL_NOT_READY");
});

test("when the champion dies while another is wanted that cannot be loaded, it is loaded again itself", async (t) => {
  const threads = collectThreads(t);
  const nats = await startNats(t);
  await using bus = await openTestBus(nats);
  await using artifacts = await openFolderStore(await tempFolder(t));
  const registry = createRegistry(bus);
  const stored = await storeModel(artifacts);
  await register(registry, stored, "c1");
  await register(registry, { ...stored, digest: `sha256:${"0".repeat(64)}` }, "c2");
  const promote = (version: number) =>
    registry.moveAlias({ modelName: "test", version, reason: "tried" }, from(`champion ${version}`));
  await promote(1);
  await using deployment = followAliases(options(bus, artifacts));
  await deployment.ready;
  const first = deployment.live("champion");
  await promote(2);
  await eventually("it was tried", () => {
    const wanted = deployment.log.versions.get(2);
    return wanted && deployment.models.state(wanted).kind === "failed";
  });
  for (const thread of threads) await thread.terminate();
  const again = await eventually("the model is loaded again", () => {
    const model = deployment.live("champion");
    return model !== first && model;
  });
  assert.equal(again.version.version, 1);
  assert.equal((await again.classify(pixels)).output.probabilities.length, 3);
});

test("canary and shadow come, change and go with their aliases, and a canary that becomes champion is none any more", async (t) => {
  const nats = await startNats(t);
  await using bus = await openTestBus(nats);
  await using artifacts = await openFolderStore(await tempFolder(t));
  const registry = createRegistry(bus);
  for (const version of [1, 2, 3]) await register(registry, await storeModel(artifacts, { version }), `c${version}`);
  const move = (alias: string, version: number, share?: number) =>
    registry.moveAlias({ modelName: "test", alias, version, reason: "tried", share }, from(crypto.randomUUID()));
  await move("champion", 1);
  await using deployment = followAliases(options(bus, artifacts));
  await deployment.ready;
  const versionOf = (alias: string) => deployment.live(alias)?.version.version;
  const becomes = (expected: Record<string, number | undefined>) =>
    eventually(`${JSON.stringify(expected)} are live`, () =>
      Object.entries(expected).every(([alias, version]) => versionOf(alias) === version),
    );

  await move("canary", 2, 0.25);
  await move("shadow", 3);
  await becomes({ champion: 1, canary: 2, shadow: 3 });
  assert.deepEqual(Object.fromEntries(deployment.log.shares), { canary: 0.25, shadow: 1 });
  await move("champion", 2);
  await becomes({ champion: 2, canary: undefined, shadow: 3 });
  await move("shadow", 0);
  await becomes({ champion: 2, shadow: undefined });
  await registry.rollBack({ modelName: "test", reason: "worse after all" }, from("r1"));
  await becomes({ champion: 1, canary: undefined });
});

test("a version that cannot be loaded leaves the champion, takes no share as canary, and is told of once for each move", async (t) => {
  const nats = await startNats(t);
  await using bus = await openTestBus(nats);
  await using artifacts = await openFolderStore(await tempFolder(t));
  const registry = createRegistry(bus);
  await register(registry, await storeModel(artifacts), "c1");
  const missing = { ...(await storeModel(artifacts)), digest: `sha256:${"0".repeat(64)}` };
  await register(registry, missing, "c2");
  const move = (alias: string, version: number) =>
    registry.moveAlias({ modelName: "test", alias, version, reason: "tried" }, from(`${alias} ${version}`));
  await move("champion", 1);
  await using deployment = followAliases(options(bus, artifacts));
  await deployment.ready;
  await move("canary", 2);
  const broken = deployment.log.versions.get(2) ?? missing;
  await eventually("it was tried", () => deployment.models.state(broken).kind === "failed");
  await move("champion", 2);
  await eventually("the registry's log has come", () => deployment.log.aliases.get("champion") === 2);
  const told = await eventually("both moves are told of", async () => {
    const events = await storedEvents(bus, predictionSubject("test", "prediction.load_failed"), predictionStream);
    return events.length >= 2 && events.map(({ message }) => message as PredictionLoadFailed);
  });
  assert.deepEqual(
    told.map(({ alias, version, instanceId, code }) => ({ alias, version, instanceId, code })),
    ["canary", "champion"].map((alias) => ({ alias, version: 2, instanceId: "i1", code: "ARTIFACT_NOT_FOUND" })),
  );
  assert.equal(deployment.live("champion")?.version.version, 1);
  assert.equal(deployment.live("canary"), undefined);
});

test("a champion that cannot be loaded is tried until it can, and health says so meanwhile", async (t) => {
  const nats = await startNats(t);
  await using bus = await openTestBus(nats);
  const [away, here] = [await tempFolder(t), await tempFolder(t)];
  await using store = await openFolderStore(away);
  await using artifacts = await openFolderStore(here);
  const registry = createRegistry(bus);
  await register(registry, await storeModel(store), "c1");
  await registry.moveAlias({ modelName: "test", version: 1, reason: "the first" }, from("c1"));
  const serving: boolean[] = [];
  const onServing = (now: boolean) => serving.push(now);
  await using deployment = followAliases({ ...options(bus, artifacts), onServing, redeploymentPauseMs: 50 });
  await deployment.ready;
  assert.deepEqual([deployment.live("champion"), serving[0]], [undefined, false]);
  await cp(away, here, { recursive: true });
  const model = await eventually("the model is live", () => deployment.live("champion"));
  assert.equal((await model.classify(pixels)).output.probabilities.length, 3);
  assert.equal(serving.at(-1), true);
  const told = await storedEvents(bus, predictionSubject("test", "prediction.load_failed"), predictionStream);
  assert.equal(told.length, 1, "once, however often it was tried");
});

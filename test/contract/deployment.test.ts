/** What a prediction service does about the model that answers, with a real broker and real inference threads. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import type { Worker } from "node:worker_threads";
import { create } from "@bufbuild/protobuf";
import { LineageSchema } from "../../gen/millrace/v1/model_pb.ts";
import { openFolderStore } from "../../lib/artifacts/folder-store.ts";
import { createRegistry } from "../../lib/registry/registry.ts";
import { followChampion } from "../../services/prediction/deployment.ts";
import { eventually, openTestBus } from "../helpers/bus.ts";
import { startNats } from "../helpers/nats-server.ts";
import { storeModel } from "../helpers/served-model.ts";
import { tempFolder } from "../helpers/temp-folder.ts";

const batching = { maxBatchSize: 8, maxDelayMs: 0, maxQueueLength: 100 };

/** The threads that this process starts while the test runs. */
function collectThreads(t: TestContext): Worker[] {
  const threads: Worker[] = [];
  const collect = (thread: Worker) => threads.push(thread);
  process.on("worker", collect);
  t.after(() => process.off("worker", collect));
  return threads;
}

test("when the thread of the model that answers dies, health says so until the model is there again", async (t) => {
  const threads = collectThreads(t);
  const nats = await startNats(t);
  await using bus = await openTestBus(nats);
  await using artifacts = await openFolderStore(await tempFolder(t));
  const registry = createRegistry(bus);
  const { name, digest, manifest } = await storeModel(artifacts);
  const origin = { runId: "", cause: { id: "c1", originTraceparent: "" } };
  await registry.register({ name, digest, manifest, lineage: create(LineageSchema) }, origin);
  await registry.moveAlias({ modelName: name, version: 1, reason: "the first" }, origin);

  const serving: boolean[] = [];
  const onServing = (now: boolean) => serving.push(now);
  await using deployment = followChampion({ bus, artifacts, modelName: name, instanceId: "i1", batching, onServing });
  await deployment.ready;
  const first = deployment.current();
  assert.ok(first);
  const pixels = async () => new Uint8Array(16 * 16 * 3);
  const { output } = await first.classify(pixels);

  deployment.batching = { ...batching, maxBatchSize: 3 };
  const waiting = first.classify(pixels).catch((error: unknown) => error);
  for (const thread of threads) await thread.terminate();
  const second = await eventually("the model is loaded again", () => {
    const model = deployment.current();
    return model !== first && model;
  });
  assert.deepEqual(serving, [true, false, true]);
  assert.deepEqual((await second.classify(pixels)).output.probabilities, output.probabilities);
  assert.equal(deployment.batching.maxBatchSize, 3);
  // What was under way is answered one way or the other; the error says to come again.
  const settled = await waiting;
  if (settled instanceof Error) assert.equal((settled as Error & { code?: string }).code, "MODEL_NOT_READY");
});

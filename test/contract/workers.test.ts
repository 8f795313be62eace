/** The prediction service in several processes on one port. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type TestContext, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { createMillraceClient } from "../../client/client.ts";
import { LineageSchema } from "../../gen/millrace/v1/model_pb.ts";
import { openFolderStore } from "../../lib/artifacts/folder-store.ts";
import { createRegistry } from "../../lib/registry/registry.ts";
import { eventually, openTestBus } from "../helpers/bus.ts";
import { startNats } from "../helpers/nats-server.ts";
import { storeModel } from "../helpers/served-model.ts";
import { tempFolder } from "../helpers/temp-folder.ts";

interface LogLine {
  readonly event: string;
  readonly pid: number;
  readonly url?: string;
}

/** A prediction service with a model and two workers, its log, and its process. */
async function startWorkers(t: TestContext): Promise<{ log: LogLine[]; primary: ChildProcess }> {
  const nats = await startNats(t);
  const folder = await tempFolder(t);
  await using bus = await openTestBus(nats);
  await using artifacts = await openFolderStore(folder);
  const registry = createRegistry(bus);
  const { name, digest, manifest } = await storeModel(artifacts);
  const origin = { runId: "", cause: { id: "c1", originTraceparent: "" } };
  await registry.register({ name, digest, manifest, lineage: create(LineageSchema) }, origin);
  await registry.moveAlias({ modelName: name, version: 1, reason: "the first" }, origin);
  const primary = spawn(process.execPath, ["--import", "tsx", "services/prediction/main.ts"], {
    cwd: join(import.meta.dirname, "../.."),
    env: {
      PATH: process.env.PATH,
      HOME: process.env.HOME,
      MILLRACE_NATS_URL: nats.url,
      MILLRACE_ARTIFACTS: `file:${folder}`,
      MILLRACE_PREDICTION_PORT: "0",
      MILLRACE_PREDICTION_MODEL_NAME: name,
      MILLRACE_PREDICTION_WORKERS: "2",
    },
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => primary.kill("SIGKILL"));
  const log: LogLine[] = [];
  createInterface(primary.stdout).on("line", (line) => log.push(JSON.parse(line) as LogLine));
  return { log, primary };
}

test("two workers answer on one port, one that is killed is started again, and all end with the first process", async (t) => {
  const { log, primary } = await startWorkers(t);
  const ready = () => log.filter(({ event }) => event === "service.ready");
  await eventually("both workers are ready", () => ready().length === 2, 60_000);
  assert.equal(new Set(ready().map(({ url }) => url)).size, 1, "one port");
  assert.equal(new Set(ready().map(({ pid }) => pid)).size, 2, "two processes");
  const [{ url = "", pid = 0 } = {}] = ready();
  const predict = async () => {
    const millrace = createMillraceClient({ baseUrl: url });
    try {
      return (await millrace.predictions.predict({ input: { case: "pixels", value: new Uint8Array(768) } })).model
        ?.version;
    } finally {
      millrace.close();
    }
  };
  for (let call = 0; call < 6; call++) assert.equal(await predict(), 1);
  const batchSizes = async () => {
    const sizes: number[] = [];
    // Connections go to the workers in turn.
    for (let call = 0; call < 4; call++) {
      const millrace = createMillraceClient({ baseUrl: url });
      sizes.push((await millrace.predictions.updateBatching({})).maxBatchSize);
      millrace.close();
    }
    return new Set(sizes);
  };
  const millrace = createMillraceClient({ baseUrl: url });
  await millrace.predictions.updateBatching({ maxBatchSize: 7 });
  millrace.close();
  await eventually("both workers form batches in the new way", async () => {
    const sizes = await batchSizes();
    return sizes.size === 1 && sizes.has(7);
  });

  process.kill(pid, "SIGKILL");
  await eventually("its end is told", () => log.some(({ event }) => event === "worker.died"));
  assert.equal(await predict(), 1, "the other worker answers meanwhile");
  await eventually("another one has taken its place", () => ready().length === 3, 60_000);
  for (let call = 0; call < 6; call++) assert.equal(await predict(), 1);
  assert.deepEqual([...(await batchSizes())], [7], "and knows what was set before it came");

  primary.kill("SIGTERM");
  const [code] = (await once(primary, "exit")) as [number | null];
  assert.equal(code, 0);
  assert.equal(log.filter(({ event }) => event === "service.stopped").length, 2);
});

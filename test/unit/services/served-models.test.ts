/** The versions that there are and what of them is in memory, as both APIs show and change it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createMillraceClient, reasonOf } from "../../../client/client.ts";
import { ServedModelState } from "../../../gen/millrace/v1/prediction_pb.ts";
import { choose } from "../../../services/prediction/answering.ts";
import { listServedModels, watchServedModels } from "../../../services/prediction/served-models.ts";
import { eventually } from "../../helpers/bus.ts";
import { startOpenInference } from "../../helpers/open-inference-server.ts";
import { startServing } from "../../helpers/served-model.ts";
import { tempFolder } from "../../helpers/temp-folder.ts";

const batching = { maxBatchSize: 8, maxDelayMs: 0, maxQueueLength: 100, maxWaitMs: 60_000 };

test("the list has every version with its aliases and its state, and whoever watches it hears of each change", async (t) => {
  const options = { batching, versions: 3, aliases: { canary: 2 }, shares: { canary: 0.1 } };
  await using serving = await startServing(await tempFolder(t), options);
  const { deployment } = serving;
  const shown = () => listServedModels(deployment).map(({ model, state, aliases }) => [model.version, state, aliases]);
  const { READY, UNLOADED } = ServedModelState;
  assert.deepEqual(shown(), [
    [3, UNLOADED, []],
    [2, READY, ["canary"]],
    [1, READY, ["champion"]],
  ]);
  const states: (ServedModelState | undefined)[] = [];
  const leaving = new AbortController();
  const watch = async () => {
    for await (const [newest] of watchServedModels(deployment, leaving.signal)) states.push(newest?.state);
  };
  const watching = watch();
  using _held = await choose(serving, { selector: { case: "version", value: 3 } });
  await eventually("the load is told of", () => states.at(-1) === READY);
  assert.equal(states[0], UNLOADED);
  leaving.abort();
  await watching;
});

test("a version is loaded and unloaded through the protocol's repository, over gRPC and REST", async (t) => {
  const server = await startOpenInference(t);
  const { openInference: client, close } = createMillraceClient({ baseUrl: server.url, retries: 0 });
  t.after(close);
  const index = async (ready = false) =>
    (await client.repositoryIndex({ ready })).models.map(({ name, version, state }) => `${name} ${version} ${state}`);
  const post = async (path: string, body: object) => {
    const response = await fetch(`${server.url}/v2/repository/${path}`, { method: "POST", body: JSON.stringify(body) });
    return [response.status, await response.json()] as const;
  };
  const version = (value: string) => ({ parameters: { version: { parameterChoice: { case: "stringParam", value } } } });
  assert.deepEqual(await index(), ["test 2 UNAVAILABLE", "test 1 READY"]);
  await client.repositoryModelLoad({ modelName: "test" });
  assert.deepEqual(await index(true), ["test 1 READY"]);
  await client.repositoryModelLoad({ modelName: "test", ...version("2") } as never);
  assert.deepEqual(await index(true), ["test 2 READY", "test 1 READY"]);
  assert.equal((await client.modelReady({ name: "test", version: "2" })).ready, true);
  assert.deepEqual(await post("models/test/unload", { parameters: { version: 2 } }), [200, {}]);
  assert.equal((await client.modelReady({ name: "test", version: "2" })).ready, false);
  assert.equal((await client.modelMetadata({ name: "test", version: "2" })).properties.classes, '["cat","dog","fox"]');
  const unload = { parameters: { version: "2", unload_dependents: false } };
  assert.deepEqual(await post("models/test/unload", unload), [200, {}]);
  const [status, listed] = await post("index", { ready: true });
  assert.deepEqual([status, listed], [200, [{ name: "test", version: "1", state: "READY", reason: "" }]]);

  const [refused, { error }] = (await post("models/test/load", { parameters: { version: "9" } })) as [
    number,
    { error: string },
  ];
  assert.deepEqual([refused, /has no version "9"/.test(error)], [404, true]);
  assert.equal((await post("models/other/load", {}))[0], 404);
});

test("what an alias names is not unloaded, nor is anything beside it by a request that names no version", async (t) => {
  const server = await startOpenInference(t);
  const { openInference: client, close } = createMillraceClient({ baseUrl: server.url, retries: 0 });
  t.after(close);
  const text = (value: string) => ({ parameterChoice: { case: "stringParam", value } as const });
  await client.repositoryModelLoad({ modelName: "test", parameters: { version: text("2") } });
  const refusal =
    'version 1 of model "test" is the champion and cannot be unloaded; move its alias first, or name another by the parameter version';
  for (const parameters of [{}, { version: text("1") }, { version: text("champion") }]) {
    await assert.rejects(client.repositoryModelUnload({ modelName: "test", parameters }), (thrown) => {
      assert.equal(reasonOf(thrown), "MODEL_IN_USE");
      assert.ok(String(thrown).includes(refusal), String(thrown));
      return true;
    });
  }
  assert.deepEqual((await client.repositoryIndex({ ready: true })).models.length, 2);

  server.withdraw();
  {
    using _held = await choose(server.serving, { selector: { case: "version", value: 2 } });
    await assert.rejects(client.repositoryModelUnload({ modelName: "test" }), /version 2 .* is in use at the moment/);
  }
  await client.repositoryModelUnload({ modelName: "test" });
  assert.deepEqual((await client.repositoryIndex({ ready: true })).models, []);
});

test("parameters that would have no effect on loading and unloading are refused over both wires", async (t) => {
  const server = await startOpenInference(t);
  const { openInference: client, close } = createMillraceClient({ baseUrl: server.url, retries: 0 });
  t.after(close);
  const refusedBy = async (action: "load" | "unload", parameters: object) => {
    const body = JSON.stringify({ parameters });
    const response = await fetch(`${server.url}/v2/repository/models/test/${action}`, { method: "POST", body });
    return [response.status, ((await response.json()) as { error: string }).error];
  };
  const refusal = (name: string, taken: string) =>
    `parameter "${name}" is not taken, only ${taken}; models are as the registry has them`;
  assert.deepEqual(await refusedBy("load", { config: "{}" }), [400, refusal("config", "version")]);
  const file = "file:1/model.onnx";
  assert.deepEqual(await refusedBy("unload", { [file]: "" }), [400, refusal(file, "version and unload_dependents")]);
  const noVersion = "parameter version must be the number of a version or an alias";
  assert.deepEqual(await refusedBy("load", { version: [1] }), [400, noVersion]);

  const config = { parameterChoice: { case: "stringParam", value: "{}" } } as const;
  const bytes = { parameterChoice: { case: "bytesParam", value: new Uint8Array(1) } } as const;
  const load = (parameters: object) =>
    client.repositoryModelLoad({ modelName: "test", parameters: parameters as never });
  await assert.rejects(load({ config }), new RegExp(refusal("config", "version")));
  await assert.rejects(load({ [file]: bytes }), new RegExp(refusal(file, "version")));
  await assert.rejects(load({ version: bytes }), new RegExp(noVersion));
});

/** Parameters of inferences over the Open Inference Protocol, of requests and of answers. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { reasonOf } from "../../../client/client.ts";
import { parsePredictionId } from "../../../services/prediction/prediction-id.ts";
import { takesCanary } from "../../../services/prediction/routing.ts";
import { startOpenInference } from "../../helpers/open-inference-server.ts";
import { grpcClient, type InferInit, input, pixels, post, shape } from "./open-inference-fixture.ts";

const raw = { modelName: "test", inputs: [input("pixels", "UINT8", shape)], rawInputContents: [pixels] };
const json = { inputs: [{ name: "pixels", datatype: "UINT8", shape, data: [...pixels] }] };

type WireParameters = NonNullable<InferInit["parameters"]>;

const text = (value: string) => ({ parameterChoice: { case: "stringParam", value } as const });
const whole = (value: bigint) => ({ parameterChoice: { case: "int64Param", value } as const });

test("both wires have the same parameters in an answer, and feedback can be given by its prediction ids", async (t) => {
  const server = await startOpenInference(t);
  const client = grpcClient(t, server);
  const overGrpc = Object.entries((await client.modelInfer(raw)).parameters);
  const { body } = await post(server, JSON.stringify(json));
  const label = body.outputs?.find(({ name }) => name === "label")?.data;
  const wires = [
    Object.fromEntries(overGrpc.map(([name, { parameterChoice }]) => [name, parameterChoice.value])),
    body.parameters as Record<string, string>,
  ];
  for (const { prediction_ids: ids } of wires) {
    const named = String(ids).split(",").map(parsePredictionId);
    assert.deepEqual(
      named.map(({ version, classIndex }) => [version, ["cat", "dog", "fox"][classIndex]]),
      (label as string[]).map((each) => [1, each]),
    );
  }
});

test("requests of one routing_key go to the same version over both wires, as over the service's own API", async (t) => {
  const server = await startOpenInference(t, { aliases: { canary: 2 }, shares: { canary: 0.5 } });
  const client = grpcClient(t, server);
  const overGrpc = async (parameters: WireParameters) => (await client.modelInfer({ ...raw, parameters })).modelVersion;
  const overRest = async (key: unknown) => {
    const { body } = await post(server, JSON.stringify({ ...json, parameters: { routing_key: key } }));
    return body.model_version;
  };
  const seen = new Set<string>();
  for (let key = 0; key < 12; key++) {
    const expected = takesCanary(String(key), { name: "test", version: 2 }, 0.5) ? "2" : "1";
    seen.add(expected);
    const answered = [
      await overGrpc({ routing_key: text(String(key)) }),
      await overGrpc({ routing_key: whole(BigInt(key)) }),
      await overRest(String(key)),
      await overRest(key),
    ];
    assert.deepEqual(answered, [expected, expected, expected, expected], `routing_key ${key}`);
  }
  assert.equal(seen.size, 2);
});

test("Triton's levels of priority are ours: 1 is high, 3 and more are low, and the others normal", async (t) => {
  const server = await startOpenInference(t);
  const client = grpcClient(t, server);
  const champion = server.serving.deployment.live("champion");
  assert.ok(champion);
  const admit = t.mock.method(champion, "admit");
  const levels: [number, string][] = [
    [0, "normal"],
    [1, "high"],
    [2, "normal"],
    [3, "low"],
    [9, "low"],
  ];
  for (const [level, expected] of levels) {
    const parameterChoice = { case: "uint64Param", value: BigInt(level) } as const;
    await client.modelInfer({ ...raw, parameters: { priority: { parameterChoice } } });
    await post(server, JSON.stringify({ ...json, parameters: { priority: level } }));
    const admitted = admit.mock.calls.slice(-2).map((call) => call.arguments[0]?.priority);
    assert.deepEqual(admitted, [expected, expected], `level ${level}`);
  }
  assert.equal(admit.mock.callCount(), 10);

  for (const wrong of [whole(-1n), text("high")]) {
    const call = client.modelInfer({ ...raw, parameters: { priority: wrong } });
    await assert.rejects(call, (thrown) => reasonOf(thrown) === "INVALID_REQUEST");
  }
  for (const wrong of [-1, 1.5, "high"]) {
    const { status, body } = await post(server, JSON.stringify({ ...json, parameters: { priority: wrong } }));
    assert.deepEqual([status, /^parameters\.priority: /.test(body.error ?? "")], [400, true]);
  }
});

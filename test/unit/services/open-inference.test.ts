/** The Open Inference Protocol over gRPC and over REST: both must give the same answers. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { deflateSync, gzipSync } from "node:zlib";
import sharp from "sharp";
import { startOpenInference } from "../../helpers/open-inference-server.ts";
import {
  floats,
  grpcClient,
  type InferInit,
  inferOverGrpc,
  inferOverRest,
  input,
  pixels,
  post,
  rawFloats,
  shape,
} from "./open-inference-fixture.ts";

function assertClose(actual: readonly number[], expected: readonly number[]): void {
  assert.equal(actual.length, expected.length);
  for (const [index, value] of actual.entries()) assert.ok(Math.abs(value - (expected[index] ?? 0)) < 1e-5);
}

const nested = (values: ArrayLike<number>): number[][] => [
  Array.from(values).slice(0, 768),
  Array.from(values).slice(768),
];

test("pixels in every form, over both wires, give the same probabilities", async (t) => {
  const server = await startOpenInference(t);
  const client = grpcClient(t, server);
  const expected = await inferOverGrpc(client, {
    inputs: [input("pixels", "UINT8", shape)],
    rawInputContents: [pixels],
  });
  assert.equal(expected.length, 6);
  for (const row of [expected.slice(0, 3), expected.slice(3)]) {
    assert.ok(Math.abs(row.reduce((sum, value) => sum + value, 0) - 1) < 1e-5);
  }
  const grpc: InferInit[] = [
    { inputs: [input("pixels", "UINT8", shape, { uintContents: [...pixels] })] },
    { inputs: [input("pixels", "FP32", shape, { fp32Contents: [...floats] })] },
    { inputs: [input("pixels", "FP32", shape)], rawInputContents: [rawFloats] },
  ];
  for (const request of grpc) assertClose(await inferOverGrpc(client, request), expected);
  for (const data of [[...pixels], nested(pixels)]) {
    assertClose(await inferOverRest(server, [{ name: "pixels", datatype: "UINT8", shape, data }]), expected);
    assertClose(await inferOverRest(server, [{ name: "pixels", datatype: "FP32", shape, data }]), expected);
  }
});

test("encoded images, over both wires, give the same probabilities and the name of the most probable class", async (t) => {
  const server = await startOpenInference(t);
  const client = grpcClient(t, server);
  const image = await sharp({ create: { width: 20, height: 30, channels: 3, background: "#c08040" } })
    .jpeg()
    .toBuffer();
  const lengths = [2];
  const bytes = input("image", "BYTES", lengths, { bytesContents: [image, image] });
  const answer = await client.modelInfer({ modelName: "test", id: "request 7", inputs: [bytes] });
  assert.deepEqual([answer.id, answer.modelName, answer.modelVersion], ["request 7", "test", "1"]);
  assert.deepEqual(
    answer.outputs.map(({ name, datatype, shape: lengths }) => [name, datatype, lengths]),
    [
      ["probabilities", "FP32", [2n, 3n]],
      ["label", "BYTES", [2n]],
    ],
  );
  const expected = await inferOverGrpc(client, { inputs: [bytes] });
  const length = Buffer.alloc(4);
  length.writeUInt32LE(image.length);
  const raw = Buffer.concat([length, image, length, image]);
  const asRaw = { inputs: [input("image", "BYTES", lengths)], rawInputContents: [raw] };
  assertClose(await inferOverGrpc(client, asRaw), expected);

  const data = [image.toString("base64"), image.toString("base64")];
  const inputs = [{ name: "image", datatype: "BYTES", shape: lengths, data }];
  const { body } = await post(server, JSON.stringify({ id: "request 8", inputs, outputs: [{ name: "label" }] }));
  const classes = ["cat", "dog", "fox"];
  const best = classes[expected.indexOf(Math.max(...expected.slice(0, 3)))];
  const { parameters: _, ...said } = body;
  assert.deepEqual(said, {
    model_name: "test",
    model_version: "1",
    id: "request 8",
    outputs: [{ name: "label", datatype: "BYTES", shape: [2], data: [best, best] }],
  });
  assertClose(await inferOverRest(server, inputs), expected);
});

test("tensors in binary, in the request and in the answer", async (t) => {
  const server = await startOpenInference(t);
  const header = JSON.stringify({
    inputs: [{ name: "pixels", datatype: "UINT8", shape, parameters: { binary_data_size: pixels.length } }],
    outputs: [{ name: "probabilities", parameters: { binary_data: true } }],
  });
  const response = await fetch(`${server.url}/v2/models/test/versions/1/infer`, {
    method: "POST",
    headers: { "inference-header-content-length": String(header.length) },
    body: Buffer.concat([Buffer.from(header), pixels]),
  });
  assert.equal(response.status, 200);
  const answer = Buffer.from(await response.arrayBuffer());
  const jsonLength = Number(response.headers.get("inference-header-content-length"));
  const { outputs } = JSON.parse(answer.subarray(0, jsonLength).toString());
  assert.deepEqual(outputs, [
    { name: "probabilities", datatype: "FP32", shape: [2, 3], parameters: { binary_data_size: 24 } },
  ]);
  const probabilities = new Float32Array(Uint8Array.from(answer.subarray(jsonLength)).buffer);
  assertClose(
    [...probabilities],
    await inferOverRest(server, [{ name: "pixels", datatype: "UINT8", shape, data: [...pixels] }]),
  );
});

test("what need not be there may be null", async (t) => {
  const server = await startOpenInference(t);
  const none = { binary_data_size: null, binary_data: null, binary_data_output: null, routing_key: null };
  const parameters = { ...none, priority: null, timeout: null };
  const tensor = { name: "pixels", datatype: "UINT8", shape, data: [...pixels] };
  const asked = [
    { id: null, parameters: null, inputs: [{ ...tensor, parameters: null }], outputs: null },
    { id: null, parameters, inputs: [{ ...tensor, parameters }], outputs: [{ name: "label", parameters: null }] },
  ];
  for (const request of asked) {
    const { status, body } = await post(server, JSON.stringify(request));
    assert.equal(status, 200, body.error);
    assert.equal("id" in body, false);
  }
  const repository = async (path: string, request: object) => {
    const method = "POST";
    return (await fetch(`${server.url}/v2/repository/${path}`, { method, body: JSON.stringify(request) })).status;
  };
  assert.equal(await repository("index", { ready: null, parameters: null }), 200);
  assert.equal(await repository("models/test/load", { parameters: null }), 200);
  assert.equal(await repository("models/test/load", { parameters: { version: null, config: null } }), 200);
  assert.equal((await post(server, '{"inputs":null}')).status, 400);
});

test("requests may be compressed, and the length of their JSON counts what was compressed", async (t) => {
  const server = await startOpenInference(t);
  const header = JSON.stringify({
    inputs: [{ name: "pixels", datatype: "UINT8", shape, parameters: { binary_data_size: pixels.length } }],
  });
  const whole = Buffer.concat([Buffer.from(header), pixels]);
  const expected = await inferOverRest(server, [{ name: "pixels", datatype: "UINT8", shape, data: [...pixels] }]);
  const bodies: [string, Uint8Array][] = [
    ["gzip", gzipSync(whole)],
    ["X-GZIP", gzipSync(whole)],
    ["deflate", deflateSync(whole)],
    ["identity", whole],
  ];
  for (const [encoding, bytes] of bodies) {
    const headers = { "content-encoding": encoding, "inference-header-content-length": String(header.length) };
    const { status, body } = await post(server, bytes, headers);
    assert.equal(status, 200, body.error);
    assertClose(body.outputs?.find(({ name }) => name === "probabilities")?.data as number[], expected);
  }
});

test("server and model describe themselves, and say whether they are ready", async (t) => {
  const server = await startOpenInference(t);
  const client = grpcClient(t, server);
  // biome-ignore lint/suspicious/noExplicitAny: JSON of many shapes
  const get = async (path: string): Promise<[number, any]> => {
    const response = await fetch(server.url + path);
    return [response.status, await response.json()];
  };
  const metadata = await client.modelMetadata({ name: "test" });
  assert.deepEqual([metadata.name, metadata.versions, metadata.platform], ["test", ["1", "2"], "onnxruntime_onnx"]);
  assert.deepEqual(metadata.inputs[1]?.shape, [-1n, 3n, 16n, 16n]);
  const [, described] = await get("/v2/models/test/versions/1");
  assert.deepEqual(described.inputs[1], { name: "pixels", datatype: "UINT8", shape: [-1, 3, 16, 16] });
  assert.equal(described.properties.classes, '["cat","dog","fox"]');
  const { name, extensions } = await client.serverMetadata({});
  assert.deepEqual([name, extensions], ["millrace", ["binary_tensor_data", "model_repository", "schedule_policy"]]);
  assert.equal((await get("/v2"))[1].name, "millrace");

  const readiness = async () => [
    (await client.serverReady({})).ready,
    (await client.modelReady({ name: "test" })).ready,
    (await get("/v2/health/ready"))[0],
    (await get("/v2/models/test/ready"))[0],
  ];
  assert.deepEqual(await readiness(), [true, true, 200, 200]);
  for (const unknown of [{ name: "other" }, { name: "test", version: "9" }, { name: "test", version: "canary" }]) {
    assert.equal((await client.modelReady(unknown)).ready, false);
  }
  assert.deepEqual(await get("/v2/models/other/ready"), [
    404,
    { error: 'there is no model "other" here, only "test"' },
  ]);
  server.withdraw();
  assert.deepEqual(await readiness(), [false, false, 503, 503]);
  assert.equal((await client.serverLive({})).live, true);
  assert.deepEqual(await get("/v2/health/live"), [200, { live: true }]);
  const { status } = await post(
    server,
    JSON.stringify({ inputs: [{ name: "pixels", datatype: "UINT8", shape, data: [...pixels] }] }),
  );
  assert.equal(status, 503);
});

test("a server that drains is not ready, as its health says, and still answers", async (t) => {
  const server = await startOpenInference(t);
  const client = grpcClient(t, server);
  const readiness = async () => [
    (await client.serverReady({})).ready,
    (await fetch(`${server.url}/v2/health/ready`)).status,
    (await fetch(`${server.url}/readyz`)).status,
  ];
  assert.deepEqual(await readiness(), [true, 200, 200]);
  server.drain();
  assert.deepEqual(await readiness(), [false, 503, 503]);
  const inputs = [input("pixels", "UINT8", shape)];
  assert.equal((await inferOverGrpc(client, { inputs, rawInputContents: [pixels] })).length, 6);
});

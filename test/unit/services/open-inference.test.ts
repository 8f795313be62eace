/** The Open Inference Protocol over gRPC and over REST: both must give the same answers. */
import assert from "node:assert/strict";
import { test } from "node:test";
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
  assert.deepEqual(body, {
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
  assert.deepEqual([name, extensions], ["millrace", ["binary_tensor_data", "model_repository"]]);
  assert.equal((await get("/v2"))[1].name, "millrace");

  const readiness = async () => [
    (await client.serverReady({})).ready,
    (await client.modelReady({ name: "test" })).ready,
    (await get("/v2/health/ready"))[0],
    (await get("/v2/models/test/ready"))[0],
  ];
  assert.deepEqual(await readiness(), [true, true, 200, 200]);
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

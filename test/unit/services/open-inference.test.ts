/** The Open Inference Protocol over gRPC and over REST: both must give the same answers and refuse the same requests. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import sharp from "sharp";
import { createMillraceClient, type MillraceClient, reasonOf } from "../../../client/client.ts";
import type { ModelInferRequestSchema } from "../../../gen/inference/open_inference_pb.ts";
import { type OpenInferenceServer, startOpenInference } from "../../helpers/open-inference-server.ts";

type InferInit = MessageInitShape<typeof ModelInferRequestSchema>;

const shape = [2, 3, 16, 16];
const pixels = Uint8Array.from({ length: 2 * 3 * 16 * 16 }, (_, index) => (index * 37) % 256);
const floats = Float32Array.from(pixels);
const rawFloats = new Uint8Array(floats.buffer);

type GrpcClient = MillraceClient["openInference"];

function grpcClient(t: TestContext, { url }: OpenInferenceServer): GrpcClient {
  const { openInference, close } = createMillraceClient({ baseUrl: url, retries: 0 });
  t.after(close);
  return openInference;
}

const hasReason = (reason: string) => (thrown: unknown) => reasonOf(thrown) === reason;

const wireShape = (lengths: readonly number[]): bigint[] => lengths.map(BigInt);
const input = (name: string, datatype: string, lengths: readonly number[], contents?: object) => ({
  name,
  datatype,
  shape: wireShape(lengths),
  ...(contents && { contents }),
});

/** Probabilities over gRPC, from the raw form that all answers have. */
async function inferOverGrpc(client: GrpcClient, request: InferInit): Promise<number[]> {
  const { outputs, rawOutputContents } = await client.modelInfer({ modelName: "test", ...request });
  const index = outputs.findIndex(({ name }) => name === "probabilities");
  return [...new Float32Array(Uint8Array.from(rawOutputContents[index] ?? []).buffer)];
}

interface RestReply {
  readonly status: number;
  readonly body: { error?: string; outputs?: { name: string; data: unknown[] }[]; [key: string]: unknown };
}

async function post({ url }: OpenInferenceServer, body: string | Uint8Array, headers = {}): Promise<RestReply> {
  const response = await fetch(`${url}/v2/models/test/infer`, { method: "POST", body, headers });
  return { status: response.status, body: (await response.json()) as RestReply["body"] };
}

async function inferOverRest(server: OpenInferenceServer, inputs: readonly object[]): Promise<number[]> {
  const { status, body } = await post(server, JSON.stringify({ inputs }));
  assert.equal(status, 200, body.error);
  return body.outputs?.find(({ name }) => name === "probabilities")?.data as number[];
}

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

const one = [1, 3, 16, 16];
const onePixels = [...pixels.slice(0, 768)];
/** What both wires refuse, and what the message must say. */
const refused: Readonly<Record<string, { inputs: [string, string, readonly number[], unknown[]][]; message: RegExp }>> =
  {
    "no input": { inputs: [], message: /0 inputs; it must have one/ },
    "two inputs": {
      inputs: [
        ["pixels", "UINT8", one, onePixels],
        ["pixels", "UINT8", one, onePixels],
      ],
      message: /2 inputs; it must have one/,
    },
    "an input of another name": { inputs: [["x", "UINT8", one, onePixels]], message: /"x" is none of the model's/ },
    "a datatype that is not taken": {
      inputs: [["pixels", "FP64", one, []]],
      message: /datatype FP64; these are taken/,
    },
    "pixels of another shape": {
      inputs: [["pixels", "UINT8", [1, 16, 16, 3], onePixels]],
      message: /must have the shape \[n, 3, 16, 16\], not \[1, 16, 16, 3\]/,
    },
    "fewer elements than the shape says": {
      inputs: [["pixels", "UINT8", one, [1, 2]]],
      message: /has 2 elements, but .* needs 768/,
    },
    "a shape with a negative length": {
      inputs: [["pixels", "UINT8", [-1, 3, 16, 16], onePixels]],
      message: /is none$/,
    },
    "no image at all": { inputs: [["pixels", "UINT8", [0, 3, 16, 16], []]], message: /holds no image/ },
    "a float above 255": {
      inputs: [["pixels", "FP32", one, onePixels.with(5, 256)]],
      message: /256 as element 5; pixels are from 0 to 255/,
    },
    "bytes that are no image": {
      inputs: [["image", "BYTES", [1], ["bm90aGluZw=="]]],
      message: /image 0 of input "image": /,
    },
  };

function grpcInput([name, datatype, lengths, data]: [string, string, readonly number[], unknown[]]) {
  const contents: Readonly<Record<string, object>> = {
    UINT8: { uintContents: data },
    FP32: { fp32Contents: data },
    BYTES: { bytesContents: data.map((text) => Buffer.from(String(text), "base64")) },
  };
  return input(name, datatype, lengths, contents[datatype] ?? {});
}

for (const [name, { inputs, message }] of Object.entries(refused)) {
  test(`${name} is refused over both wires with a message that says so`, async (t) => {
    const server = await startOpenInference(t);
    const call = grpcClient(t, server).modelInfer({ modelName: "test", inputs: inputs.map(grpcInput) });
    await assert.rejects(call, (thrown) => {
      const error = ConnectError.from(thrown);
      assert.equal(error.code, Code.InvalidArgument);
      assert.match(error.rawMessage, message);
      // What grpc-js alone would show.
      assert.match(String(error.cause), message);
      return true;
    });
    const json = inputs.map(([name, datatype, shape, data]) => ({ name, datatype, shape, data }));
    const { status, body } = await post(server, JSON.stringify({ inputs: json }));
    assert.equal(status, 400);
    assert.match(body.error ?? "", message);
  });
}

test("raw contents must be there for every input, and alone", async (t) => {
  const client = grpcClient(t, await startOpenInference(t));
  const wrong: InferInit[] = [
    { inputs: [input("pixels", "UINT8", shape)], rawInputContents: [pixels, pixels] },
    { inputs: [input("pixels", "UINT8", shape, { uintContents: [1] })], rawInputContents: [pixels] },
    { inputs: [input("pixels", "FP32", shape)], rawInputContents: [pixels.subarray(1)] },
    { inputs: [input("image", "BYTES", [1])], rawInputContents: [Uint8Array.of(9, 0, 0, 0, 1)] },
    { inputs: [input("image", "BYTES", [1])], rawInputContents: [Uint8Array.of(9)] },
    { inputs: [input("pixels", "UINT8", one, { uintContents: onePixels.with(0, 256) })] },
  ];
  for (const request of wrong) await assert.rejects(inferOverGrpc(client, request), hasReason("INVALID_REQUEST"));
});

test("what is no request is refused over REST", async (t) => {
  const server = await startOpenInference(t);
  const bodies: [string, Record<string, string>, RegExp][] = [
    ["{", {}, /no JSON/],
    ['{"inputs":1}', {}, /^inputs: /],
    ['{"inputs":[]}', { "inference-header-content-length": "99" }, /is 99, the request has 13 bytes/],
    ['{"inputs":[]}', { "content-encoding": "gzip" }, /content-encoding gzip is not taken/],
    ['{"inputs":[]}xy', { "inference-header-content-length": "13" }, /2 bytes in binary that belong to no input/],
  ];
  for (const [body, headers, message] of bodies) {
    const reply = await post(server, body, headers);
    assert.equal(reply.status, 400);
    assert.match(reply.body.error ?? "", message);
  }
});

test("another model, another version and another path are not found", async (t) => {
  const server = await startOpenInference(t);
  const client = grpcClient(t, server);
  const inputs = [input("pixels", "UINT8", shape)];
  const rawInputContents = [pixels];
  for (const other of [{ modelName: "other" }, { modelName: "test", modelVersion: "3" }]) {
    await assert.rejects(client.modelInfer({ ...other, inputs, rawInputContents }), hasReason("MODEL_NOT_FOUND"));
  }
  await assert.rejects(client.modelMetadata({ name: "other" }), hasReason("MODEL_NOT_FOUND"));
  const statusOf = async (path: string) => (await fetch(server.url + path)).status;
  const paths = [
    "/v2/models/other",
    "/v2/models/test/versions/3",
    "/v2/models/test/versions/none",
    "/v2/models/test/stop",
    "/v2/models/%",
    "/v2/x",
    "/elsewhere",
  ];
  assert.deepEqual(
    await Promise.all(paths.map(statusOf)),
    paths.map(() => 404),
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
  assert.equal(described.properties.classes, "cat,dog,fox");
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
  const { status } = await post(server, JSON.stringify({ inputs: [] }));
  assert.equal(status, 503);
});

/** What the Open Inference Protocol refuses, over gRPC and over REST alike. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import { connect } from "node:http2";
import { createConnection } from "node:net";
import { buffer } from "node:stream/consumers";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { Code, ConnectError } from "@connectrpc/connect";
import sharp from "sharp";
import { reasonOf } from "../../../client/client.ts";
import { startOpenInference } from "../../helpers/open-inference-server.ts";
import { grpcClient, type InferInit, inferOverGrpc, input, pixels, post, shape } from "./open-inference-fixture.ts";

const hasReason = (reason: string) => (thrown: unknown) => reasonOf(thrown) === reason;

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
    "more images than are taken at a time": {
      inputs: [["pixels", "UINT8", [257, 3, 16, 16], Array.from({ length: 257 * 768 }, () => 0)]],
      message: /holds 257 images; at most 256 are taken/,
    },
    "a float above 255": {
      inputs: [["pixels", "FP32", one, onePixels.with(5, 256)]],
      message: /256 as element 5; pixels are from 0 to 255/,
    },
    "images in rows": {
      inputs: [["image", "BYTES", [1, 2], ["", ""]]],
      message: /must have the shape \[n\], not \[1, 2\]/,
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

test("tensors count among the bytes that may wait, and those beyond them are refused", async (t) => {
  const client = grpcClient(t, await startOpenInference(t, { waitingBytes: pixels.length }));
  const infer = () =>
    client.modelInfer({ modelName: "test", inputs: [input("pixels", "UINT8", shape)], rawInputContents: [pixels] });
  const outcomes = await Promise.allSettled(Array.from({ length: 10 }, infer));
  const refusals = outcomes.filter((outcome) => outcome.status === "rejected").map(({ reason }) => reason);
  assert.ok(refusals.length > 0 && refusals.length < 10, `${refusals.length} of 10 were refused`);
  assert.ok(refusals.every(hasReason("QUEUE_FULL")));
  assert.equal((await infer()).outputs.length, 2, "what was answered is counted no more");
});

test("raw contents must be there for every input, and alone", async (t) => {
  const client = grpcClient(t, await startOpenInference(t));
  const wrong: InferInit[] = [
    { inputs: [input("pixels", "UINT8", shape)], rawInputContents: [pixels, pixels] },
    { inputs: [input("pixels", "UINT8", shape, { uintContents: [1] })], rawInputContents: [pixels] },
    { inputs: [input("pixels", "FP32", shape)], rawInputContents: [pixels.subarray(1)] },
    { inputs: [input("image", "BYTES", [1])], rawInputContents: [Uint8Array.of(9, 0, 0, 0, 1)] },
    { inputs: [input("image", "BYTES", [1])], rawInputContents: [Uint8Array.of(9)] },
    { inputs: [input("image", "BYTES", [1])], rawInputContents: [new Uint8Array(8_000_000)] },
    { inputs: [input("image", "BYTES", [2_000_000])], rawInputContents: [new Uint8Array(8_000_000)] },
    { inputs: [input("image", "BYTES", [1, 2_000_000])], rawInputContents: [new Uint8Array(8_000_000)] },
    { inputs: [input("pixels", "UINT8", one, { uintContents: onePixels.with(0, 256) })] },
  ];
  for (const request of wrong) await assert.rejects(inferOverGrpc(client, request), hasReason("INVALID_REQUEST"));
});

test("what is no request is refused over REST", async (t) => {
  const server = await startOpenInference(t);
  const bodies: [string | Uint8Array, Record<string, string>, RegExp][] = [
    ["{", {}, /no JSON/],
    ['{"inputs":1}', {}, /^inputs: /],
    ['{"inputs":[]}', { "inference-header-content-length": "99" }, /is 99, the request has 13 bytes/],
    ['{"inputs":[]}', { "content-encoding": "gzip" }, /not what gzip makes: incorrect header check/],
    [gzipSync("{}").subarray(0, 12), { "content-encoding": "gzip" }, /not what gzip makes: unexpected end of file/],
    ['{"inputs":[]}xy', { "inference-header-content-length": "13" }, /2 bytes in binary that belong to no input/],
  ];
  for (const [body, headers, message] of bodies) {
    const reply = await post(server, body, headers);
    assert.equal(reply.status, 400);
    assert.match(reply.body.error ?? "", message);
  }
});

test("an encoding that nobody knows is refused with 415", async (t) => {
  const server = await startOpenInference(t);
  for (const encoding of ["br", "gzip, gzip", "constructor"]) {
    const { status, body } = await post(server, '{"inputs":[]}', { "content-encoding": encoding });
    assert.equal(status, 415);
    assert.equal(
      body.error,
      `content-encoding ${encoding} is not taken; send gzip, deflate, or what is not compressed`,
    );
  }
});

test("a request that is too large is refused with 413, also to a client that is still writing", async (t) => {
  const server = await startOpenInference(t);
  const tooLarge = /has more than 8388608 bytes/;
  const { status, body } = await post(server, new Uint8Array(8 * 1024 ** 2 + 1));
  assert.deepEqual([status, tooLarge.test(body.error ?? "")], [413, true]);

  // This client writes all of it before it reads, and hears nothing if its connection is reset.
  const headers = { "content-length": 60_000_000 };
  const asked = request(`${server.url}/v2/models/test/infer`, { method: "POST", headers });
  asked.end(Buffer.alloc(60_000_000));
  const [response] = (await once(asked, "response")) as [IncomingMessage];
  assert.equal(response.statusCode, 413);
  assert.match((await buffer(response)).toString(), tooLarge);
});

test("a request that expands to more than is taken is refused with 413, without the memory that it asks for", async (t) => {
  const server = await startOpenInference(t);
  // A gibibyte of zeros in a mebibyte: streams of gzip one behind the other are one.
  const part = gzipSync(Buffer.alloc(8 * 1024 ** 2));
  const bomb = Buffer.concat(Array.from({ length: 128 }, () => part));
  const peakMb = () => process.resourceUsage().maxRSS / 1024;
  const beforeMb = peakMb();
  const { status, body } = await post(server, bomb, { "content-encoding": "gzip" });
  assert.deepEqual([status, /has more than 8388608 bytes/.test(body.error ?? "")], [413, true]);
  assert.ok(peakMb() - beforeMb < 100, `memory rose by ${peakMb() - beforeMb} MB`);
});

test("elements that are nested deeper than any shape are none", async (t) => {
  const server = await startOpenInference(t);
  const data = `${"[".repeat(5_000)}1${"]".repeat(5_000)}`;
  const { status, body } = await post(
    server,
    `{"inputs":[{"name":"pixels","datatype":"UINT8","shape":[1,3,16,16],"data":${data}}]}`,
  );
  assert.deepEqual([status, /data other than/.test(body.error ?? "")], [400, true]);
});

test("a page of another origin may not send what the browser asks nobody about", async (t) => {
  const server = await startOpenInference(t);
  const statusFrom = async (origin: string) =>
    (await fetch(`${server.url}/v2/repository/index`, { method: "POST", body: "{}", headers: { origin } })).status;
  assert.deepEqual(
    [await statusFrom("https://stranger.example"), await statusFrom("null"), await statusFrom(server.url)],
    [403, 403, 200],
  );
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

test("an inference that takes longer than its request allows is answered in time, and harms no other", async (t) => {
  const server = await startOpenInference(t);
  // Takes far longer to decode than the millisecond that it has.
  const create = { width: 4_000, height: 4_000, channels: 3, background: "white" } as const;
  const image = await sharp({ create }).png().toBuffer();
  const inputs = [{ name: "image", datatype: "BYTES", shape: [1], data: [image.toString("base64")] }];
  const late = await post(server, JSON.stringify({ inputs, parameters: { timeout: 1_000 } }));
  assert.deepEqual(
    [late.status, late.body.error],
    [504, "the inference of test was not done in 1 ms; allow it more by the parameter timeout, in microseconds"],
  );
  const { status } = await post(server, JSON.stringify({ inputs, parameters: { timeout: 60_000_000 } }));
  assert.equal(status, 200);
  for (const timeout of [0, -1, "soon"]) {
    const refusal = await post(server, JSON.stringify({ inputs, parameters: { timeout } }));
    assert.equal(refusal.status, 400);
    assert.match(refusal.body.error ?? "", /timeout/);
  }
  const client = grpcClient(t, server);
  const inferWithin = (parameterChoice: object) => {
    const parameters = { timeout: { parameterChoice } } as NonNullable<InferInit["parameters"]>;
    const images = { bytesContents: [image] };
    return client.modelInfer({ modelName: "test", inputs: [input("image", "BYTES", [1], images)], parameters });
  };
  const isLate = (thrown: unknown) => ConnectError.from(thrown).code === Code.DeadlineExceeded;
  await assert.rejects(inferWithin({ case: "int64Param", value: 1_000n }), isLate);
  await assert.rejects(inferWithin({ case: "int64Param", value: 0n }), hasReason("INVALID_REQUEST"));
  assert.equal((await inferWithin({ case: "uint64Param", value: 60_000_000n })).outputs.length, 2);
});

test("a request that does not come whole in time is answered, and what may still come of it is not waited for", async (t) => {
  const server = await startOpenInference(t, { bodyTimeoutMs: 100 });
  const { port } = new URL(server.url);
  const path = "/v2/models/test/infer";
  const socket = createConnection(Number(port), "127.0.0.1");
  socket.write(`POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{`);
  assert.match((await buffer(socket)).toString(), /^HTTP\/1\.1 504 .*had not come whole after 100 ms/s);

  const session = connect(server.url);
  const stream = session.request({ ":method": "POST", ":path": path });
  stream.write("{");
  const [headers] = (await once(stream, "response")) as [Record<string, unknown>];
  assert.equal(headers[":status"], 504);
  assert.match((await buffer(stream)).toString(), /had not come whole/);
  session.close();
});

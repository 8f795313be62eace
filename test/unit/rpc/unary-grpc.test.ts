/**
 * gRPC calls byte by byte, over both paths of the server: its own for unary calls, and connect-node's. A call that names a
 * compression takes the second; its messages may still be plain, so that both can be sent the same bytes.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { type ClientHttp2Session, connect } from "node:http2";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { PredictRequestSchema, PredictResponseSchema } from "../../../gen/millrace/v1/prediction_pb.ts";
import { predictRequest, type RunningServer, startServer } from "./server-fixture.ts";

const paths = { "own path": {}, "connect-node": { "grpc-encoding": "gzip" } } as const;

interface Reply {
  /** grpc-status. */
  readonly code: number;
  readonly body: Buffer;
  /** Whether status and headers came as one block, so that the client may try again. */
  readonly trailersOnly: boolean;
  readonly contentType: string | undefined;
}

type RequestHeaders = Readonly<Record<string, string>>;

async function call(server: RunningServer, chunks: readonly Buffer[], headers: RequestHeaders = {}): Promise<Reply> {
  const session: ClientHttp2Session = connect(server.url);
  try {
    const stream = session.request({
      ":method": "POST",
      ":path": "/millrace.v1.PredictionService/Predict",
      "content-type": "application/grpc",
      te: "trailers",
      ...headers,
    });
    let [body, trailers, trailersOnly] = [Buffer.alloc(0), {} as Record<string, unknown>, false];
    stream.on("response", (received) => {
      trailersOnly = received["grpc-status"] !== undefined;
      trailers = { ...trailers, ...received };
    });
    stream.on("trailers", (received) => {
      trailers = { ...trailers, ...received };
    });
    stream.on("data", (chunk: Buffer) => {
      body = Buffer.concat([body, chunk]);
    });
    for (const chunk of chunks) stream.write(chunk);
    stream.end();
    await once(stream, "close");
    return { code: Number(trailers["grpc-status"]), body, trailersOnly, contentType: String(trailers["content-type"]) };
  } finally {
    session.close();
  }
}

/** A message with the five bytes that go before it. */
function framed(message: Uint8Array, { flag = 0, length = message.length } = {}): Buffer {
  const prefix = Buffer.alloc(5);
  prefix[0] = flag;
  prefix.writeUInt32BE(length, 1);
  return Buffer.concat([prefix, message]);
}

const message = (text: string): Uint8Array =>
  toBinary(PredictRequestSchema, create(PredictRequestSchema, predictRequest(text)));
const cat = framed(message("cat"));

const refused: Readonly<Record<string, { chunks: Buffer[]; headers?: RequestHeaders; code: Code }>> = {
  "no message": { chunks: [], code: Code.Unimplemented },
  "two messages": { chunks: [cat, cat], code: Code.Unimplemented },
  "a prefix that is cut short": { chunks: [Buffer.alloc(3)], code: Code.InvalidArgument },
  "a message that is cut short": { chunks: [cat.subarray(0, -1)], code: Code.InvalidArgument },
  "bytes that are no message": { chunks: [framed(Buffer.from([0xff, 0xff]))], code: Code.Internal },
  "a message that breaks a rule": { chunks: [framed(Buffer.alloc(0))], code: Code.InvalidArgument },
  "a message above the limit": { chunks: [framed(message("x".repeat(2_000)))], code: Code.ResourceExhausted },
  "a prefix that announces too much": {
    chunks: [framed(Buffer.alloc(4), { length: 2 ** 32 - 1 })],
    code: Code.ResourceExhausted,
  },
  "a timeout that is none": { chunks: [cat], headers: { "grpc-timeout": "soon" }, code: Code.InvalidArgument },
  "a timeout of nine digits": { chunks: [cat], headers: { "grpc-timeout": "100000000S" }, code: Code.InvalidArgument },
  "a call whose time is over": {
    chunks: [framed(message("deaf"))],
    headers: { "grpc-timeout": "50m" },
    code: Code.DeadlineExceeded,
  },
};

for (const [path, choice] of Object.entries(paths)) {
  test(`${path}: an answer, however the request is cut into pieces`, async (t) => {
    const server = await startServer(t);
    const bytes = [...cat].map((byte) => Buffer.of(byte));
    for (const chunks of [[cat], bytes, [cat.subarray(0, 5), cat.subarray(5)]]) {
      const { code, body, trailersOnly, contentType } = await call(server, chunks, choice);
      assert.deepEqual([code, trailersOnly, contentType], [0, false, "application/grpc+proto"]);
      assert.equal(body.readUInt32BE(1), body.length - 5);
      assert.equal(fromBinary(PredictResponseSchema, body.subarray(5)).predictions[0]?.label, "cat");
    }
  });

  for (const [name, { chunks, headers, code }] of Object.entries(refused)) {
    test(`${path}: ${name} is refused with ${Code[code]}, and may be tried again`, async (t) => {
      const server = await startServer(t, { limits: { maxMessageBytes: 1_000 } });
      const reply = await call(server, chunks, { ...choice, ...headers });
      assert.deepEqual([Code[reply.code], reply.body.length, reply.trailersOnly], [Code[code], 0, true]);
    });
  }

  test(`${path}: a timeout that no timer takes is cut to what one does, or to the server's limit`, async (t) => {
    const server = await startServer(t);
    for (const timeout of ["172800S", "2147483S", "2147484S", "1000000S", "99999999H"]) {
      assert.equal((await call(server, [cat], { ...choice, "grpc-timeout": timeout })).code, 0, timeout);
    }
    const strict = await startServer(t, { limits: { maxDeadlineMs: 100 } });
    const { code } = await call(strict, [framed(message("wait"))], { ...choice, "grpc-timeout": "99999999H" });
    assert.equal(Code[code], "DeadlineExceeded");
  });

  test(`${path}: calls are logged with method, protocol and status`, async (t) => {
    const server = await startServer(t);
    await call(server, [cat], choice);
    await call(server, [framed(message("missing"))], choice);
    const calls = server.logLines.filter(({ event }) => event === "rpc.call");
    assert.deepEqual(
      calls.map(({ method, protocol, status }) => [method, protocol, status]),
      ["OK", "UNAVAILABLE"].map((status) => ["millrace.v1.PredictionService/Predict", "grpc", status]),
    );
  });
}

test("a compressed request is answered", async (t) => {
  const server = await startServer(t);
  const compressed = framed(gzipSync(message("cat")), { flag: 1 });
  assert.equal((await call(server, [compressed], { "grpc-encoding": "gzip" })).code, 0);
});

test("a message that is compressed although the call names no compression is refused", async (t) => {
  const server = await startServer(t);
  const reply = await call(server, [framed(gzipSync(message("cat")), { flag: 1 })]);
  assert.equal(Code[reply.code], Code[Code.Internal]);
});

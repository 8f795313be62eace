import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { createMillraceClient, reasonOf } from "../../../client/client.ts";
import { ViolationsSchema } from "../../../gen/buf/validate/validate_pb.ts";
import { BadRequestSchema, ErrorInfoSchema } from "../../../gen/google/rpc/error_details_pb.ts";
import { PredictionService } from "../../../gen/millrace/v1/prediction_pb.ts";
import { statusFromError } from "../../../lib/rpc/server-errors.ts";
import { predictRequest, type RunningServer, rejection, startServer } from "./server-fixture.ts";

function connectClient({ url }: RunningServer) {
  return createClient(PredictionService, createConnectTransport({ baseUrl: url, httpVersion: "1.1" }));
}

function grpcClient({ url, closeLater }: RunningServer) {
  const millrace = createMillraceClient({ baseUrl: url, retries: 0 });
  closeLater(millrace.close);
  return millrace;
}

async function grpcReason(call: Promise<unknown>): Promise<string | undefined> {
  return reasonOf(await rejection(call));
}

test("a request that breaks a rule is refused with the field, in both forms of detail", async (t) => {
  const server = await startServer(t);
  const error = ConnectError.from(await rejection(connectClient(server).predict({})));
  assert.equal(error.code, Code.InvalidArgument);
  assert.equal(error.findDetails(BadRequestSchema)[0]?.fieldViolations[0]?.field, "input");
  assert.equal(error.findDetails(ViolationsSchema).length, 1);
  assert.equal(await grpcReason(grpcClient(server).predictions.predict({})), "INVALID_REQUEST");
});

test("a run whose model would have no valid name is refused before it starts", async (t) => {
  const server = await startServer(t);
  const { pipeline } = grpcClient(server);
  const reasonFor = (modelName: string) => grpcReason(pipeline.requestRun({ spec: { modelName } }));
  // The fixture's own answer is RUN_NOT_FOUND: the request got through.
  assert.deepEqual(await Promise.all(["", "ok-1"].map(reasonFor)), ["RUN_NOT_FOUND", "RUN_NOT_FOUND"]);
  for (const name of ["A", "a.b", "a b", "-a", "a".repeat(64)])
    assert.equal(await reasonFor(name), "INVALID_REQUEST", name);
});

test("a stranger's exception keeps its text to the log", async (t) => {
  const server = await startServer(t);
  const error = ConnectError.from(await rejection(connectClient(server).predict(predictRequest("stranger"))));
  assert.deepEqual([error.code, error.rawMessage], [Code.Internal, "internal error"]);
  assert.equal(error.findDetails(ErrorInfoSchema)[0]?.reason, "INTERNAL");
  const line = server.logLines.find(({ event }) => event === "rpc.failed");
  assert.match(JSON.stringify(line), /swordfish/);
});

test("an error with a long text fits into what clients take", async (t) => {
  const server = await startServer(t);
  const error = ConnectError.from(await rejection(grpcClient(server).predictions.predict(predictRequest("long"))));
  assert.equal(error.code, Code.InvalidArgument);
  assert.match(error.rawMessage, /^x(😀)+\.\.\.$/u);
  assert.ok(Buffer.byteLength(error.rawMessage) < 1_100);
});

test("an error whose text cannot be encoded is answered all the same, and the server goes on", async (t) => {
  const server = await startServer(t);
  const { predictions } = grpcClient(server);
  const error = ConnectError.from(await rejection(predictions.predict(predictRequest("half"))));
  assert.deepEqual([error.code, error.rawMessage], [Code.InvalidArgument, "half of one: \ufffd"]);
  assert.equal((await predictions.predict(predictRequest("cat"))).predictions[0]?.label, "cat");
});

test("an image that fails by a stranger's exception keeps its text to itself as well", () => {
  const { code, message } = statusFromError(new TypeError("the password is swordfish"));
  assert.deepEqual([code, message], [Code.Internal, "internal error"]);
});

test("a message above the limit is refused", async (t) => {
  const server = await startServer(t, { limits: { maxMessageBytes: 1_000 } });
  const large = predictRequest("x".repeat(2_000));
  assert.equal(ConnectError.from(await rejection(connectClient(server).predict(large))).code, Code.ResourceExhausted);
  const error = ConnectError.from(await rejection(grpcClient(server).predictions.predict(large)));
  assert.equal(error.code, Code.ResourceExhausted);
});

test("a deadline ends a call even if its handler does not listen", async (t) => {
  const server = await startServer(t);
  const error = ConnectError.from(
    await rejection(connectClient(server).predict(predictRequest("deaf"), { timeoutMs: 100 })),
  );
  assert.equal(error.code, Code.DeadlineExceeded);
  const { predictions } = grpcClient(server);
  const late = ConnectError.from(await rejection(predictions.predict(predictRequest("deaf"), { timeoutMs: 100 })));
  assert.equal(late.code, Code.DeadlineExceeded);
});

test("a stream may have a deadline of days, and ends at the server's longest", async (t) => {
  const timeoutMs = 2 * 24 * 60 * 60 * 1_000;
  const watch = async (server: RunningServer, atMost: number) => {
    const received: string[] = [];
    for await (const { run } of grpcClient(server).pipeline.watchRun({ runId: "run-1" }, { timeoutMs })) {
      if (received.push(run?.runId ?? "") === atMost) break;
    }
    return received;
  };
  assert.deepEqual(await watch(await startServer(t), 1), ["run-1"]);
  const strict = await startServer(t, { limits: { maxDeadlineMs: 200 } });
  assert.equal(ConnectError.from(await rejection(watch(strict, 2))).code, Code.DeadlineExceeded);
});

test("a deadline over Connect that no timer takes is cut to what one does", async (t) => {
  const { url } = await startServer(t);
  const send = (timeoutMs: string) =>
    fetch(`${url}/millrace.v1.PredictionService/GetModel`, {
      method: "POST",
      headers: { "content-type": "application/json", "connect-timeout-ms": timeoutMs },
      body: "{}",
    });
  const statuses = await Promise.all(["172800000", "2147483648", "9999999999", "10000000000"].map(send));
  // Eleven digits are no deadline of the protocol's.
  assert.deepEqual(
    statuses.map(({ status }) => status),
    [200, 200, 200, 400],
  );
});

test("a unary call without a deadline gets the server's", async (t) => {
  const server = await startServer(t, { limits: { defaultDeadlineMs: 100 } });
  const error = ConnectError.from(await rejection(connectClient(server).predict(predictRequest("wait"))));
  assert.equal(error.code, Code.DeadlineExceeded);
});

test("a cancelled call aborts the signal of its handler, over HTTP/1.1 and HTTP/2", async (t) => {
  const server = await startServer(t);
  const calls = [
    (signal: AbortSignal) => connectClient(server).predict(predictRequest("wait"), { signal }),
    (signal: AbortSignal) => grpcClient(server).predictions.predict(predictRequest("wait"), { signal }),
  ];
  for (const call of calls) {
    const cancel = new AbortController();
    const reached = server.nextWaiting();
    const failed = rejection(call(cancel.signal));
    const handlerSignal = await reached;
    const handlerAborted = new Promise((resolve) => handlerSignal.addEventListener("abort", resolve));
    cancel.abort();
    await handlerAborted;
    await failed;
  }
});

test("clients that leave streams in the middle end them, and are no failure of the server", async (t) => {
  const server = await startServer(t);
  const { pipeline } = grpcClient(server);
  const leave = async () => {
    let messages = 0;
    for await (const _ of pipeline.watchRun({ runId: "endless" })) if (++messages === 50) break;
  };
  await Promise.all(Array.from({ length: 20 }, leave));
  const ended = () => server.logLines.filter(({ event }) => event === "rpc.call");
  for (let tries = 0; ended().length < 20 && tries < 100; tries++) await delay(20);
  const statuses = ended().map(({ status }) => status);
  assert.deepEqual(
    statuses,
    Array.from({ length: 20 }, () => "CANCELLED"),
  );
  assert.deepEqual(
    server.logLines.filter(({ event }) => event === "rpc.failed"),
    [],
  );
});

test("closing ends an open stream with SHUTTING_DOWN and lets a unary call finish", async (t) => {
  const server = await startServer(t);
  const { pipeline } = grpcClient(server);
  const received: string[] = [];
  const streaming = rejection(
    (async () => {
      for await (const { run } of pipeline.watchRun({ runId: "run-1" })) received.push(run?.runId ?? "");
    })(),
  );
  await server.nextWaiting();
  await server.close(5_000);
  assert.equal(reasonOf(await streaming), "SHUTTING_DOWN");
  assert.deepEqual(received, ["run-1"]);
});

test("a unary call under way may finish while the server closes, and is cut after the grace time", async (t) => {
  const server = await startServer(t);
  const finished = server.nextWaiting();
  const first = rejection(connectClient(server).predict(predictRequest("wait")));
  await finished;
  const startedMs = performance.now();
  await server.close(200);
  const tookMs = performance.now() - startedMs;
  assert.ok(tookMs >= 190 && tookMs < 3_000, `closing took ${tookMs} ms`);
  assert.ok(ConnectError.from(await first));
});

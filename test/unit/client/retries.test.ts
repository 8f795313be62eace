import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer } from "node:net";
import { type TestContext, test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { createMillraceClient, reasonOf, retryDelayMsOf } from "../../../client/client.ts";
import { PipelineService } from "../../../gen/millrace/v1/pipeline_pb.ts";
import { AppError, type ErrorCode } from "../../../lib/errors.ts";
import { eventually } from "../../helpers/bus.ts";
import { partialService } from "../../helpers/partial-service.ts";
import { predictRequest, rejection, startServer } from "../rpc/server-fixture.ts";
import { connectClient, startPredictionServer } from "./prediction-server.ts";

/** A method that fails with each of the codes in turn and then answers, and how often it was called. */
function failing(codes: readonly ErrorCode[], retryDelayMs = 5) {
  const calls = { count: 0 };
  const answer = () => {
    const code = codes[calls.count++];
    if (code !== undefined) throw new AppError(code, "not now", { details: { retryDelayMs: String(retryDelayMs) } });
    return {};
  };
  return { calls, answer };
}

test("UNAVAILABLE and RESOURCE_EXHAUSTED are tried again until there is an answer", async (t) => {
  const { calls, answer } = failing(["MODEL_NOT_READY", "QUEUE_FULL", "MODEL_NOT_READY"]);
  await connectClient(await startPredictionServer(t, { getModel: answer })).predictions.getModel({});
  assert.equal(calls.count, 4);
});

test("the tries are counted, and the last error is the caller's, with its reason", async (t) => {
  const { calls, answer } = failing(Array.from({ length: 10 }, () => "QUEUE_FULL" as const));
  const millrace = connectClient(await startPredictionServer(t, { getModel: answer }), { retries: 2 });
  const error = await rejection(millrace.predictions.getModel({}));
  assert.deepEqual([reasonOf(error), retryDelayMsOf(error)], ["QUEUE_FULL", 5]);
  assert.equal(calls.count, 3);
});

test("what must not happen twice, and what another try cannot mend, is tried once", async (t) => {
  const changing = failing(["MODEL_NOT_READY"]);
  const invalid = failing(["IMAGE_UNREADABLE"]);
  const server = await startPredictionServer(t, { updateBatching: changing.answer, predict: invalid.answer });
  const { predictions } = connectClient(server);
  assert.equal(reasonOf(await rejection(predictions.updateBatching({}))), "MODEL_NOT_READY");
  const error = await rejection(predictions.predict(predictRequest("cat")));
  assert.deepEqual([reasonOf(error), retryDelayMsOf(error)], ["IMAGE_UNREADABLE", undefined]);
  assert.deepEqual([changing.calls.count, invalid.calls.count], [1, 1]);
});

test("RESOURCE_EXHAUSTED without a time to come back, such as for a message that is too large, is tried once", async (t) => {
  const server = await startServer(t, { limits: { maxMessageBytes: 1_000 } });
  const { predictions } = connectClient(server);
  const error = ConnectError.from(await rejection(predictions.predict(predictRequest("x".repeat(2_000)))));
  assert.equal(error.code, Code.ResourceExhausted);
  assert.equal(server.logLines.filter(({ event }) => event === "rpc.call").length, 1);
});

test("a pause that would outlast the deadline is not begun: the caller gets the error at once", async (t) => {
  const { calls, answer } = failing(["QUEUE_FULL"], 60_000);
  const { predictions } = connectClient(await startPredictionServer(t, { getModel: answer }));
  assert.equal(reasonOf(await rejection(predictions.getModel({}, { timeoutMs: 30_000 }))), "QUEUE_FULL");
  assert.equal(calls.count, 1);
});

test("all tries share one deadline", async (t) => {
  const never: ErrorCode[] = Array.from({ length: 10_000 }, () => "QUEUE_FULL");
  const { calls, answer } = failing(never, 10);
  const millrace = connectClient(await startPredictionServer(t, { getModel: answer }), { retries: 10_000 });
  const code = ConnectError.from(await rejection(millrace.predictions.getModel({}, { timeoutMs: 2_000 }))).code;
  assert.ok(code === Code.ResourceExhausted || code === Code.DeadlineExceeded, Code[code]);
  assert.ok(calls.count > 1 && calls.count <= 201, `${calls.count} tries of at least 10 ms in 2 s`);
});

test("a caller who cancels during a pause is not kept waiting", async (t) => {
  const { answer } = failing(["QUEUE_FULL"], 60_000);
  const cancel = new AbortController();
  const server = await startPredictionServer(t, { getModel: answer });
  const { predictions } = connectClient(server);
  const failed = rejection(predictions.getModel({}, { signal: cancel.signal, timeoutMs: 0 }));
  await eventually("the first try fails", () => server.logLines.some(({ event }) => event === "rpc.call"));
  cancel.abort();
  assert.equal(ConnectError.from(await failed).code, Code.Canceled);
});

/** A port in front of a server that hangs up on its first connections. */
async function startBrokenProxy(t: TestContext, port: number, hangUps: number): Promise<string> {
  let connections = 0;
  const proxy = createServer((socket) => {
    socket.on("error", () => {});
    if (connections++ < hangUps) {
      socket.once("data", () => socket.destroy());
      return;
    }
    const upstream = connect(port, "127.0.0.1");
    upstream.on("error", () => socket.destroy());
    socket.on("close", () => upstream.destroy());
    socket.pipe(upstream).pipe(socket);
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  t.after(() => proxy.close());
  return `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
}

test("a connection that breaks is UNAVAILABLE, and the call is made again over another", async (t) => {
  const server = await startPredictionServer(t, { getModel: () => ({ classes: ["cat"] }) });
  for (const retries of [0, 10]) {
    const millrace = createMillraceClient({ baseUrl: await startBrokenProxy(t, server.port, 2), retries });
    server.closeLater(() => millrace.close());
    const outcome = await millrace.predictions.getModel({}).then(
      ({ classes }) => classes[0],
      (error) => ConnectError.from(error).code,
    );
    assert.equal(outcome, retries === 0 ? Code.Unavailable : "cat");
  }
});

test("a stream is tried again before its first message, and never after it", async (t) => {
  let calls = 0;
  async function* watchRun() {
    calls++;
    const busy = new AppError("BROKER_UNAVAILABLE", "not now", { details: { retryDelayMs: "5" } });
    if (calls < 3) throw busy;
    yield { run: { runId: "run-1" } };
    throw busy;
  }
  const server = await startServer(t, { services: [partialService(PipelineService, { watchRun })] });
  const { pipeline } = connectClient(server);
  const received: unknown[] = [];
  const error = await rejection(
    (async () => {
      for await (const message of pipeline.watchRun({ runId: "run-1" })) received.push(message);
    })(),
  );
  assert.equal(reasonOf(error), "BROKER_UNAVAILABLE");
  assert.deepEqual([calls, received.length], [3, 1]);
});

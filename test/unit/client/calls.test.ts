import assert from "node:assert/strict";
import { createServer, type IncomingHttpHeaders } from "node:http2";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { createMillraceClient, reasonOf } from "../../../client/client.ts";
import { createTransport as createBrowserTransport } from "../../../client/transport-browser.ts";
import { eventually } from "../../helpers/bus.ts";
import { predictRequest, rejection, startServer } from "../rpc/server-fixture.ts";
import { connectClient, startPredictionServer } from "./prediction-server.ts";

async function codeOf(call: Promise<unknown>): Promise<string | undefined> {
  return Code[ConnectError.from(await rejection(call)).code];
}

test("a call ends at the client's deadline, and at its own if it has one", async (t) => {
  const server = await startServer(t);
  const { predictions } = connectClient(server, { deadlineMs: 500 });
  // Connects, which takes time of its own.
  await predictions.predict(predictRequest("cat"), { timeoutMs: 0 });
  for (const options of [{}, { timeoutMs: 500 }]) {
    const reached = server.nextWaiting();
    const code = codeOf(predictions.predict(predictRequest("wait"), options));
    const handlerSignal = await reached;
    if (!handlerSignal.aborted) await new Promise((resolve) => handlerSignal.addEventListener("abort", resolve));
    assert.equal(await code, "DeadlineExceeded");
  }
});

test("the server is told the deadline, 30 s where nobody says anything, and the headers of client and call", async (t) => {
  const received: IncomingHttpHeaders[] = [];
  const server = createServer();
  server.on("stream", (stream, headers) => {
    received.push(headers);
    stream.respond({ ":status": 200, "content-type": "application/grpc", "grpc-status": "13" }, { endStream: true });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const { predictions, close } = createMillraceClient({ baseUrl, headers: { tenant: "a", authorization: "Bearer x" } });
  t.after(close);
  await rejection(predictions.updateBatching({}));
  await rejection(predictions.updateBatching({}, { timeoutMs: 1_000, headers: { tenant: "b" } }));
  await rejection(predictions.updateBatching({}, { timeoutMs: 0 }));
  assert.deepEqual(
    received.map((headers) => [headers.tenant, headers.authorization]),
    [
      ["a", "Bearer x"],
      ["b", "Bearer x"],
      ["a", "Bearer x"],
    ],
  );
  // What is left of it when the call is sent.
  const [first, second, third] = received.map((headers) => headers["grpc-timeout"]);
  assert.match(String(first), /^(30000|2\d{4})m$/);
  assert.match(String(second), /^(1000|\d{1,3})m$/);
  assert.equal(third, undefined);
});

test("a stream goes on beyond the client's deadline, and ends at its own", async (t) => {
  const server = await startServer(t);
  const { pipeline } = connectClient(server, { deadlineMs: 1 });
  const watch = async () => {
    for await (const { run } of pipeline.watchRun({ runId: "run-1" }, { timeoutMs: 300 })) {
      assert.equal(run?.runId, "run-1");
    }
  };
  assert.equal(await codeOf(watch()), "DeadlineExceeded");
});

test("leaving a stream's loop ends the call", async (t) => {
  const server = await startServer(t);
  const { pipeline } = connectClient(server);
  for await (const { run } of pipeline.watchRun({ runId: "run-1" })) {
    assert.equal(run?.runId, "run-1");
    break;
  }
  const ended = () => server.logLines.find(({ event }) => event === "rpc.call");
  assert.equal((await eventually("the call ends", ended)).status, "CANCELLED");
});

test("leaving the loop of a stream in both directions ends the call, and no more requests are asked for", async (t) => {
  const server = await startPredictionServer(t, {
    async *predictStream(requests) {
      for await (const _ of requests) yield { result: { case: "response", value: {} } };
    },
  });
  const { predictions } = connectClient(server);
  let ended = false;
  async function* requests() {
    try {
      for (;;) yield { request: predictRequest("cat") };
    } finally {
      ended = true;
    }
  }
  for await (const { result } of predictions.predictStream(requests())) {
    assert.equal(result.case, "response");
    break;
  }
  const logged = () => server.logLines.find(({ event }) => event === "rpc.call");
  assert.equal((await eventually("the call ends", logged)).status, "CANCELLED");
  await eventually("its requests end", () => ended);
});

test("a call can be cancelled, before it is made and while it is under way", async (t) => {
  const server = await startServer(t);
  const { predictions, pipeline } = connectClient(server);
  assert.equal(await codeOf(predictions.predict(predictRequest("wait"), { signal: AbortSignal.abort() })), "Canceled");
  const cancel = new AbortController();
  const reached = server.nextWaiting();
  const code = codeOf(predictions.predict(predictRequest("wait"), { signal: cancel.signal }));
  await reached;
  cancel.abort();
  assert.equal(await code, "Canceled");
  const watch = async () => {
    for await (const _ of pipeline.watchRun({ runId: "run-1" }, { signal: cancel.signal })) assert.fail("a message");
  };
  assert.equal(await codeOf(watch()), "Canceled");
});

test("closing the client ends the calls under way", async (t) => {
  const server = await startServer(t);
  const millrace = connectClient(server);
  const reached = server.nextWaiting();
  const failed = rejection(millrace.predictions.predict(predictRequest("wait")));
  await reached;
  millrace.close();
  assert.match(ConnectError.from(await failed).message, /the client was closed/);
  const later = ConnectError.from(await rejection(millrace.predictions.getModel({})));
  assert.deepEqual([later.code, later.rawMessage], [Code.FailedPrecondition, "the client was closed"]);
});

test("an address that cannot be reached is UNAVAILABLE, whatever the operating system says of it", async () => {
  for (const baseUrl of ["http://127.0.0.1:1", "http://255.255.255.255:1"]) {
    const { predictions } = createMillraceClient({ baseUrl, retries: 0 });
    assert.equal(await codeOf(predictions.getModel({})), "Unavailable", baseUrl);
  }
});

test("another transport takes the place of the default one", async (t) => {
  const server = await startServer(t);
  const createTransport = (baseUrl: string) => createConnectTransport({ baseUrl, httpVersion: "1.1" });
  const { predictions } = connectClient(server, { createTransport });
  const { predictions: classes } = await predictions.predict(predictRequest("cat"));
  assert.equal(classes[0]?.label, "cat");
  const error = await rejection(predictions.predict(predictRequest("field")));
  assert.equal(reasonOf(error), "INVALID_REQUEST");
  const [line] = server.logLines.filter(({ event }) => event === "rpc.call");
  assert.equal(line?.protocol, "connect");
});

test("no address at all is a mistake that is told at once", () => {
  assert.throws(() => createMillraceClient({ baseUrl: [] }), /is no URL such as/);
  assert.throws(() => createMillraceClient({ baseUrl: "127.0.0.1:7404" }), /baseUrl "127.0.0.1:7404"/);
});

test("an error that is not from Millrace has no reason", async (t) => {
  const server = await startPredictionServer(t, {});
  const millrace = connectClient(server);
  assert.equal(reasonOf(new Error("something else")), undefined);
  assert.equal(await codeOf(millrace.pipeline.listRuns({})), "Unimplemented");
});

test("a stream that the client sends is refused over fetch, with what to do instead", async (t) => {
  const { predictions } = connectClient(await startServer(t), { createTransport: createBrowserTransport });
  async function* requests() {
    yield { request: predictRequest("cat") };
  }
  const first = async () => {
    for await (const _ of predictions.predictStream(requests())) return;
  };
  const error = ConnectError.from(await rejection(first()));
  assert.equal(error.code, Code.Unimplemented);
  assert.match(error.rawMessage, /PredictStream sends a stream.*takes one message/);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
  Http2SessionManager,
} from "@connectrpc/connect-node";
import { createTransport as createGrpcJsTransport } from "../../../client/transport-node.ts";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../../../gen/google/rpc/error_details_pb.ts";
import { PipelineService } from "../../../gen/millrace/v1/pipeline_pb.ts";
import { PredictionService } from "../../../gen/millrace/v1/prediction_pb.ts";
import { predictRequest, rejection, startServer } from "./server-fixture.ts";

type TransportFactory = (baseUrl: string, sessionManager: Http2SessionManager) => Transport;

const transports: Readonly<Record<string, TransportFactory>> = {
  "Connect over HTTP/1.1": (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "1.1" }),
  "Connect over HTTP/2": (baseUrl, sessionManager) =>
    createConnectTransport({ baseUrl, httpVersion: "2", sessionManager }),
  "Connect with JSON": (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: false }),
  "Connect with GET": (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "1.1", useHttpGet: true }),
  "gRPC-Web over HTTP/1.1": (baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
  "gRPC-Web over HTTP/2": (baseUrl, sessionManager) =>
    createGrpcWebTransport({ baseUrl, httpVersion: "2", sessionManager }),
  gRPC: (baseUrl, sessionManager) => createGrpcTransport({ baseUrl, sessionManager }),
  "gRPC by grpc-js": (baseUrl) => createGrpcJsTransport(baseUrl),
};

for (const [name, createTransport] of Object.entries(transports)) {
  test(`${name}: an answer, a stream, an error with its details`, async (t) => {
    const { url, closeLater } = await startServer(t);
    const sessions = new Http2SessionManager(url);
    closeLater(() => sessions.abort());
    const transport = createTransport(url, sessions);
    const predictions = createClient(PredictionService, transport);

    const answer = await predictions.predict(predictRequest("cat"));
    assert.equal(answer.predictions[0]?.label, "cat");

    const leave = new AbortController();
    const stream = createClient(PipelineService, transport).watchRun({ runId: "run-1" }, leave);
    await assert.rejects(
      async () => {
        for await (const { run } of stream) {
          assert.equal(run?.runId, "run-1");
          leave.abort();
        }
      },
      (error) => ConnectError.from(error).code === Code.Canceled,
    );

    const error = ConnectError.from(await rejection(predictions.predict(predictRequest("missing"))));
    assert.equal(error.code, Code.Unavailable);
    assert.equal(error.rawMessage, "no model is live yet");
    const [info] = error.findDetails(ErrorInfoSchema);
    assert.deepEqual([info?.reason, info?.domain], ["MODEL_NOT_READY", "millrace"]);
    assert.deepEqual({ ...info?.metadata }, { model: "pictograms" });
    assert.equal(error.findDetails(RetryInfoSchema)[0]?.retryDelay?.seconds, 1n);
  });
}

test("a JSON client such as curl gets an answer", async (t) => {
  const { url } = await startServer(t);
  const response = await fetch(`${url}/millrace.v1.PredictionService/Predict`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ image: Buffer.from("cat").toString("base64"), topK: 1 }),
  });
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), { predictions: [{ label: "cat", classIndex: 1, probability: 0.5 }] });
});

test("an error about a field carries google.rpc.BadRequest", async (t) => {
  const { url } = await startServer(t);
  const predictions = createClient(PredictionService, createConnectTransport({ baseUrl: url, httpVersion: "1.1" }));
  const error = ConnectError.from(await rejection(predictions.predict(predictRequest("field"))));
  assert.equal(error.code, Code.InvalidArgument);
  const [violation] = error.findDetails(BadRequestSchema)[0]?.fieldViolations ?? [];
  assert.deepEqual([violation?.field, violation?.description], ["topK", "no such class"]);
});

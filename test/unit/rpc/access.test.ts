/** Bearer tokens: one check for every protocol and path of the port. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
  Http2SessionManager,
} from "@connectrpc/connect-node";
import { createMillraceClient } from "../../../client/client.ts";
import { HealthCheckResponse_ServingStatus } from "../../../gen/grpc/health/v1/health_pb.ts";
import { ServerReflection } from "../../../gen/grpc/reflection/v1/reflection_pb.ts";
import { PipelineService } from "../../../gen/millrace/v1/pipeline_pb.ts";
import { PredictionService } from "../../../gen/millrace/v1/prediction_pb.ts";
import { predictRequest, rejection, startServer } from "./server-fixture.ts";

const accessTokens = ["first-token", "second-token"];

type TransportFactory = (
  baseUrl: string,
  interceptors: Interceptor[],
  sessionManager: Http2SessionManager,
) => Transport;

const transports: Readonly<Record<string, TransportFactory>> = {
  "Connect over HTTP/1.1": (baseUrl, interceptors) =>
    createConnectTransport({ baseUrl, httpVersion: "1.1", interceptors }),
  "Connect with GET": (baseUrl, interceptors) =>
    createConnectTransport({ baseUrl, httpVersion: "1.1", useHttpGet: true, interceptors }),
  "gRPC-Web": (baseUrl, interceptors) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1", interceptors }),
  gRPC: (baseUrl, interceptors, sessionManager) => createGrpcTransport({ baseUrl, interceptors, sessionManager }),
};

const withToken =
  (token: string | undefined): Interceptor =>
  (next) =>
  (request) => {
    if (token !== undefined) request.header.set("authorization", token);
    return next(request);
  };

for (const [name, createTransport] of Object.entries(transports)) {
  test(`${name}: only callers with a token get an answer or a stream`, async (t) => {
    const { url, closeLater } = await startServer(t, { accessTokens });
    const sessions = new Http2SessionManager(url);
    closeLater(() => sessions.abort());
    const as = (token?: string) => createTransport(url, [withToken(token)], sessions);
    for (const token of ["Bearer first-token", "bearer second-token"]) {
      const answer = await createClient(PredictionService, as(token)).predict(predictRequest("cat"));
      assert.equal(answer.predictions[0]?.label, "cat");
    }
    const wrong = [undefined, "Bearer", "Bearer first", "Basic first-token", "Bearer first-token second-token"];
    for (const token of wrong) {
      const call = createClient(PredictionService, as(token)).predict(predictRequest("cat"));
      assert.equal(ConnectError.from(await rejection(call)).code, Code.Unauthenticated, token);
    }
    const stream = createClient(PipelineService, as()).watchRun({ runId: "run-1" });
    assert.equal(ConnectError.from(await rejection(stream[Symbol.asyncIterator]().next())).code, Code.Unauthenticated);
  });
}

test("grpc-js, reflection and every plain path are refused without a token, and health is not", async (t) => {
  const { url, closeLater } = await startServer(t, {
    accessTokens,
    metricsText: () => Promise.resolve("m 1\n"),
  });
  const { predictions, health, close } = createMillraceClient({ baseUrl: url, retries: 0 });
  closeLater(close);
  const error = (await rejection(predictions.predict(predictRequest("cat")))) as { message: string };
  assert.match(error.message, /401|unauthenticated/i);
  assert.equal((await health.check({})).status, HealthCheckResponse_ServingStatus.SERVING);
  const sessions = new Http2SessionManager(url);
  closeLater(() => sessions.abort());
  const transport = createGrpcTransport({ baseUrl: url, sessionManager: sessions });
  async function* ask() {
    yield { messageRequest: { case: "listServices", value: "" } } as const;
  }
  const listed = createClient(ServerReflection, transport).serverReflectionInfo(ask());
  assert.equal(ConnectError.from(await rejection(listed[Symbol.asyncIterator]().next())).code, Code.Unauthenticated);
  const statusOf = async (path: string, headers = {}) => (await fetch(url + path, { headers })).status;
  const authorization = "Bearer second-token";
  assert.deepEqual(
    [await statusOf("/healthz"), await statusOf("/readyz"), await statusOf("/metrics"), await statusOf("/elsewhere")],
    [200, 200, 401, 401],
  );
  assert.deepEqual(
    [await statusOf("/metrics", { authorization }), await statusOf("/elsewhere", { authorization })],
    [200, 404],
  );
});

test("a browser may ask beforehand without a token", async (t) => {
  const { url } = await startServer(t, { accessTokens, corsOrigins: ["https://console.example.org"] });
  const headers = { origin: "https://console.example.org", "access-control-request-headers": "authorization" };
  const preflight = await fetch(`${url}/millrace.v1.PredictionService/Predict`, { method: "OPTIONS", headers });
  assert.equal(preflight.status, 204);
  assert.match(preflight.headers.get("access-control-allow-headers") ?? "", /authorization/);
});

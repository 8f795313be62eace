import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { createMillraceClient, waitUntilServing } from "../../../client/client.ts";
import { HealthCheckResponse_ServingStatus as ServingStatus } from "../../../gen/grpc/health/v1/health_pb.ts";
import { PredictionService } from "../../../gen/millrace/v1/prediction_pb.ts";
import { type RunningServer, rejection, startServer } from "./server-fixture.ts";

function healthClient({ url, closeLater }: RunningServer) {
  const { health, close } = createMillraceClient({ baseUrl: url });
  closeLater(close);
  return health;
}

test("Check and List answer for the server and for each service", async (t) => {
  const server = await startServer(t);
  const client = healthClient(server);
  assert.equal((await client.check({})).status, ServingStatus.SERVING);
  server.health.setAll(false);
  assert.equal((await client.check({ service: PredictionService.typeName })).status, ServingStatus.NOT_SERVING);
  const { statuses } = await client.list({});
  assert.deepEqual(
    Object.entries(statuses).map(([name, { status }]) => [name, status]),
    [
      ["", ServingStatus.NOT_SERVING],
      ["millrace.v1.PredictionService", ServingStatus.NOT_SERVING],
      ["millrace.v1.PipelineService", ServingStatus.NOT_SERVING],
    ],
  );
  const error = ConnectError.from(await rejection(client.check({ service: "no.such.Service" })));
  assert.equal(error.code, Code.NotFound);
});

test("Watch tells each change, and NOT_SERVING when the server closes", async (t) => {
  const server = await startServer(t);
  const seen: number[] = [];
  for await (const { status } of healthClient(server).watch({ service: PredictionService.typeName })) {
    seen.push(status);
    if (seen.length === 1) server.health.setAll(false);
    if (seen.length === 2) server.health.setAll(true);
    if (seen.length === 3) void server.close(5_000);
  }
  const { SERVING, NOT_SERVING } = ServingStatus;
  assert.deepEqual(seen, [SERVING, NOT_SERVING, SERVING, NOT_SERVING]);
});

test("the probes of HTTP say the same", async (t) => {
  const { url, health } = await startServer(t);
  const statusOf = async (path: string) => (await fetch(url + path)).status;
  assert.deepEqual([await statusOf("/healthz"), await statusOf("/readyz")], [200, 200]);
  health.setAll(false);
  assert.deepEqual([await statusOf("/healthz"), await statusOf("/readyz"), await statusOf("/other")], [200, 503, 404]);
});

test("waiting for a server ends when it serves", async (t) => {
  const server = await startServer(t);
  server.health.setAll(false);
  const waiting = waitUntilServing(healthClient(server), { timeoutMs: 10_000 });
  const asked = await Promise.race([
    waiting.then(() => "serving"),
    healthClient(server)
      .check({})
      .then(() => "asked"),
  ]);
  assert.equal(asked, "asked");
  server.health.setAll(true);
  await waiting;
});

test("waiting for a server that never serves fails with what was last heard, or when it is cancelled", async (t) => {
  const server = await startServer(t);
  server.health.setAll(false);
  const late = ConnectError.from(await rejection(waitUntilServing(healthClient(server), { timeoutMs: 2_000 })));
  assert.equal(late.code, Code.DeadlineExceeded);
  assert.match(late.message, /does not serve after 2000 ms: it says that it does not serve/);

  const signal = AbortSignal.abort();
  const cancelled = ConnectError.from(
    await rejection(waitUntilServing(healthClient(server), { timeoutMs: 10_000, signal })),
  );
  assert.equal(cancelled.code, Code.Canceled);
});

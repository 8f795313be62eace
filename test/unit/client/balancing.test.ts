import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { type TestContext, test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { createMillraceClient } from "../../../client/client.ts";
import { PredictionService } from "../../../gen/millrace/v1/prediction_pb.ts";
import { createLogger } from "../../../lib/log.ts";
import { createHealth } from "../../../lib/rpc/health.ts";
import { createRpcServer, type ListeningServer } from "../../../lib/rpc/server.ts";
import { eventually } from "../../helpers/bus.ts";
import { partialService } from "../../helpers/partial-service.ts";
import { connectClient, startPredictionServer } from "./prediction-server.ts";

/** A server that counts its calls. */
async function startCounting(t: TestContext) {
  const calls = { count: 0 };
  const getModel = () => ({ classes: [String(++calls.count)] });
  return { calls, server: await startPredictionServer(t, { getModel }) };
}

/** A port that hangs up on everyone, and counts them. */
async function startHangingUp(port = 0) {
  const calls = { count: 0 };
  const server = createServer((socket) => {
    calls.count++;
    socket.on("error", () => {});
    socket.destroy();
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return { calls, server, port: (server.address() as AddressInfo).port };
}

/** A server on a port that must be this one. */
function startOnPort(port: number, getModel: () => { classes: string[] }): Promise<ListeningServer> {
  const server = createRpcServer({
    services: [partialService(PredictionService, { getModel })],
    health: createHealth(),
    logger: createLogger({ service: "test", level: "silent" }),
  });
  return server.listen({ host: "127.0.0.1", port });
}

test("several addresses are called in turn", async (t) => {
  const servers = [await startCounting(t), await startCounting(t), await startCounting(t)];
  const { predictions } = connectClient(servers.map(({ server }) => server));
  for (let call = 0; call < 30; call++) await predictions.getModel({});
  assert.deepEqual(
    servers.map(({ calls }) => calls.count),
    [10, 10, 10],
  );
});

test("an address that fails is left out, so that its failures cost no call, and comes back", async (t) => {
  const healthy = await startCounting(t);
  const failing = await startHangingUp();
  const urls = [healthy.server.url, `http://127.0.0.1:${failing.port}`];
  const millrace = createMillraceClient({ baseUrl: urls });
  healthy.server.closeLater(() => millrace.close());
  // Failures of calls that were under way together are one: otherwise it would now be left out for the longest time.
  await Promise.all(Array.from({ length: 20 }, () => millrace.predictions.getModel({})));
  const askedTogether = failing.calls.count;
  for (let call = 0; call < 30; call++) await millrace.predictions.getModel({});
  // Each time that it is left out again takes longer: calls that take less than minutes find it a few times.
  const askedLater = failing.calls.count - askedTogether;
  assert.ok(askedTogether >= 1 && askedLater <= 5, `asked ${askedTogether} and ${askedLater} times`);
  assert.equal(healthy.calls.count, 50);

  failing.server.close();
  await once(failing.server, "close");
  let callsAfter = 0;
  const recovered = await startOnPort(failing.port, () => ({ classes: [String(++callsAfter)] }));
  t.after(() => recovered.close(1_000));
  await eventually("it is called again", () => millrace.predictions.getModel({}).then(() => callsAfter > 0), 10_000);
});

test("an address at which streams in both directions fail is left out as well", async (t) => {
  const server = await startPredictionServer(t, {
    async *predictStream(requests) {
      for await (const _ of requests) yield { result: { case: "response", value: {} } };
    },
  });
  const failing = await startHangingUp();
  t.after(() => failing.server.close());
  const millrace = createMillraceClient({ baseUrl: [`http://127.0.0.1:${failing.port}`, server.url] });
  server.closeLater(() => millrace.close());
  async function* requests() {
    yield { request: { input: { case: "pixels", value: new Uint8Array(1) } } as const };
  }
  let failures = 0;
  for (let call = 0; call < 20; call++) {
    try {
      for await (const { result } of millrace.predictions.predictStream(requests()))
        assert.equal(result.case, "response");
    } catch (thrown) {
      assert.equal(ConnectError.from(thrown).code, Code.Unavailable);
      failures++;
    }
  }
  assert.ok(failures >= 1 && failures <= 5, `${failures} of 20 failed`);
});

test("a server that stops in order costs no call", async (t) => {
  const staying = await startCounting(t);
  let answered = 0;
  const stopping = await startOnPort(0, () => ({ classes: [String(++answered)] }));
  const millrace = createMillraceClient({ baseUrl: [staying.server.url, stopping.url] });
  staying.server.closeLater(() => millrace.close());
  const callAgain = async () => {
    for (let call = 0; call < 50; call++) await millrace.predictions.getModel({});
  };
  const callers = Promise.all(Array.from({ length: 8 }, callAgain));
  await eventually("calls are under way", () => answered >= 20);
  await stopping.close();
  await callers;
  assert.equal(staying.calls.count + answered, 400);
});

test("where all addresses fail they are called all the same", async (t) => {
  const failing = await startHangingUp();
  t.after(() => failing.server.close());
  const millrace = createMillraceClient({ baseUrl: `http://127.0.0.1:${failing.port}`, retries: 0 });
  t.after(millrace.close);
  await Promise.allSettled([millrace.predictions.getModel({})]);
  const before = failing.calls.count;
  await eventually("it is called again", async () => {
    await Promise.allSettled([millrace.predictions.getModel({})]);
    return failing.calls.count > before;
  });
});

/** Connections that are asked to leave, while calls go on over them. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { type ClientHttp2Session, connect } from "node:http2";
import { test } from "node:test";
import { createMillraceClient } from "../../../client/client.ts";
import { predictRequest, startServer } from "./server-fixture.ts";

async function statusOf(session: ClientHttp2Session): Promise<unknown> {
  const stream = session.request({ ":path": "/healthz" }).resume();
  const [headers] = (await once(stream, "response")) as [Record<string, unknown>];
  await once(stream, "close");
  return headers[":status"];
}

test("a client that calls without a pause loses no call when its connection is too old", async (t) => {
  const server = await startServer(t, { limits: { maxConnectionAgeMs: 200 } });
  const { predictions, close } = createMillraceClient({ baseUrl: server.url });
  server.closeLater(close);
  const endMs = performance.now() + 2_500;
  const callOn = async (): Promise<number> => {
    let calls = 0;
    for (; performance.now() < endMs; calls++) await predictions.predict(predictRequest("cat"));
    return calls;
  };
  const calls = await Promise.all(Array.from({ length: 4 }, callOn));
  assert.ok(calls.every((count) => count > 0));
});

test("an old connection is asked to leave, answers what is still on its way, and is closed", async (t) => {
  const server = await startServer(t, { limits: { maxConnectionAgeMs: 50 } });
  const session = connect(server.url);
  server.closeLater(() => session.destroy());
  const closed = once(session, "close");
  const codes: unknown[] = [];
  session.on("goaway", (code) => codes.push(code));
  assert.equal(await statusOf(session), 200);
  await closed;
  assert.ok(codes.length > 0 && codes.every((code) => code === 0), `${codes}`);
});

test("without a limit a connection stays", async (t) => {
  const server = await startServer(t);
  const session = connect(server.url);
  server.closeLater(() => session.close());
  let asked = 0;
  session.on("goaway", () => asked++);
  for (let call = 0; call < 3; call++) assert.equal(await statusOf(session), 200);
  assert.equal(asked, 0);
});

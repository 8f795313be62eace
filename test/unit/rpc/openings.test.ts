import assert from "node:assert/strict";
import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { connect, type Socket } from "node:net";
import { test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { type RunningServer, startServer } from "./server-fixture.ts";

const getModel = "/millrace.v1.PredictionService/GetModel";

async function openSocket({ port }: RunningServer): Promise<Socket> {
  const socket = connect({ port, host: "127.0.0.1", noDelay: true });
  socket.on("error", () => {});
  await once(socket, "connect");
  return socket;
}

/** Everything that the server says until it closes the connection. */
async function replyTo(server: RunningServer, opening: string | Buffer): Promise<string> {
  const socket = await openSocket(server);
  socket.write(opening);
  let reply = "";
  socket.on("data", (chunk) => {
    reply += chunk.toString("latin1");
  });
  await once(socket, "close");
  return reply;
}

async function statusOf(server: RunningServer): Promise<number> {
  return (await fetch(`${server.url}/healthz`)).status;
}

test("an HTTP/1.1 request that comes byte by byte is answered", async (t) => {
  const server = await startServer(t);
  const socket = await openSocket(server);
  const body = "{}";
  const request = `POST ${getModel} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
  const reply = once(socket, "data");
  for (const byte of Buffer.from(request)) {
    socket.write(Buffer.of(byte));
    await nextTurn();
  }
  assert.match(String(await reply), /^HTTP\/1\.1 200/);
  socket.destroy();
});

test("an HTTP/2 opening that comes byte by byte is answered", async (t) => {
  const server = await startServer(t);
  const socket = await openSocket(server);
  const reply = once(socket, "data");
  const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  const emptySettings = Buffer.of(0, 0, 0, 4, 0, 0, 0, 0, 0);
  for (const byte of Buffer.concat([preface, emptySettings])) {
    socket.write(Buffer.of(byte));
    await nextTurn();
  }
  const [frame] = await reply;
  assert.equal(frame[3], 4, "the first frame of an HTTP/2 server is SETTINGS");
  socket.destroy();
});

test("garbage is refused and harms nobody else", async (t) => {
  const server = await startServer(t);
  assert.match(await replyTo(server, "\u0000\u0001garbage\r\n\r\n"), /^HTTP\/1\.1 400/);
  assert.match(await replyTo(server, "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"), /^HTTP\/1\.1 (400|505)/);
  await replyTo(server, Buffer.concat([Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Buffer.alloc(100, 0xff)]));
  assert.equal(await statusOf(server), 200);
});

test("a request without a usable host gets 400 and harms nobody else", async (t) => {
  const server = await startServer(t);
  assert.match(await replyTo(server, `POST ${getModel} HTTP/1.0\r\n\r\n`), /^HTTP\/1\.1 400/);
  assert.match(
    await replyTo(server, `POST ${getModel} HTTP/1.1\r\nhost: [\r\nconnection: close\r\n\r\n`),
    /^HTTP\/1\.1 400/,
  );
  assert.equal(await statusOf(server), 200);
});

test("a connection that says nothing is closed after the opening time", async (t) => {
  const server = await startServer(t, { limits: { openingTimeoutMs: 50 } });
  const silent = await openSocket(server);
  const half = await openSocket(server);
  half.write("PRI * HT");
  await Promise.all([once(silent, "close"), once(half, "close")]);
});

test("an idle HTTP/1.1 connection is kept for longer than load balancers keep theirs, and is closed then", async (t) => {
  const request = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
  const ask = async (socket: Socket): Promise<string> => {
    const reply = once(socket, "data");
    socket.write(request);
    return String(await reply);
  };
  const socket = await openSocket(await startServer(t));
  for (let requests = 0; requests < 3; requests++) {
    const [, seconds] = /^keep-alive: timeout=(\d+)/im.exec(await ask(socket)) ?? [];
    assert.ok(Number(seconds) > 60, `${seconds} s`);
  }
  socket.destroy();
  const idle = await openSocket(await startServer(t, { limits: { keepAliveMs: 50 } }));
  const closed = once(idle, "close");
  assert.match(await ask(idle), /^HTTP\/1\.1 200/);
  await closed;
});

test("closing does not wait for connections that say nothing or are idle", async (t) => {
  const server = await startServer(t);
  const silent = await openSocket(server);
  assert.equal(await statusOf(server), 200);
  const session = connectHttp2(server.url);
  await once(session, "connect");
  const startedMs = performance.now();
  await server.close(10_000);
  assert.ok(performance.now() - startedMs < 2_000);
  silent.destroy();
});

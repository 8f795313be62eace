/** Requests that Node answers, beside those that it does not see. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { type ClientHttp2Session, connect } from "node:http2";
import { test } from "node:test";
import {
  errorCode,
  type Frame,
  flag,
  frameType,
  headerFrames,
  resetFrame,
  setting,
  settingsFrame,
  windowUpdateFrame,
} from "../../../lib/http2/frames.ts";
import { headerBlock } from "../../../lib/http2/hpack.ts";
import { createRandom } from "../../../lib/nn/random.ts";
import { connectPeer, type Peer, requestHeaders, startServer, type TestServer, windowBytes } from "./peer.ts";

const answerHeaders = headerBlock([[":status", "200"]]);
const answerTrailers = headerBlock([["x-status", "fine"]]);

const request = (streamId: number, path: string): Buffer => headerFrames(streamId, requestHeaders(path), true);

const endOf =
  (streamId: number) =>
  (frame: Frame): boolean =>
    frame.streamId === streamId && (frame.flags & flag.endStream) !== 0;

function bodyBytes({ frames }: Peer, streamId: number): number {
  return frames
    .filter((frame) => frame.type === frameType.data && frame.streamId === streamId)
    .reduce((sum, { payload }) => sum + payload.length, 0);
}

async function answerAll({ taken }: TestServer, peer: Peer, body: Buffer): Promise<void> {
  await peer.settled();
  for (const { stream } of taken) stream.answer(answerHeaders, body, answerTrailers);
}

/** What comes back for a body. */
async function echo(session: ClientHttp2Session, body: Buffer): Promise<Buffer> {
  const stream = session.request({ ":method": "POST", ":path": "/echo", "x-some": "é ~".repeat(50) });
  stream.end(body);
  const chunks: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  await once(stream, "close");
  return Buffer.concat(chunks);
}

test("many requests of any size at a time get back what is theirs", async (t) => {
  const server = await startServer(t);
  const session = connect(`http://127.0.0.1:${server.port}`);
  t.after(() => session.destroy());
  const random = createRandom(3);
  const bodies = Array.from({ length: 40 }, (_, index) =>
    Buffer.alloc(random.integer(index % 4 === 0 ? 500_000 : 5_000), `body ${index};`),
  );
  const answers = await Promise.all(bodies.map((body) => echo(session, body)));
  for (const [index, answer] of answers.entries())
    assert.ok(answer.equals(bodies[index] ?? Buffer.alloc(0)), `${index}`);
});

test("both kinds share the connection's window, and get all of it that they are given", async (t) => {
  const server = await startServer(t);
  const wide = new Map([[setting.initialWindowSize, 10_000_000]]);
  const peer = await connectPeer(t, server.port, wide);
  const size = 150_000;
  peer.send(request(1, `/large/${size}`), request(3, "/taken"), request(5, `/large/${size}`));
  await answerAll(server, peer, Buffer.alloc(size));
  const received = (): number => bodyBytes(peer, 1) + bodyBytes(peer, 3) + bodyBytes(peer, 5);
  while (received() < windowBytes) await peer.settled();
  assert.equal(received(), windowBytes);
  // In odd pieces, so that frames have to be cut.
  for (let granted = windowBytes; granted < 3 * size; granted += 9_973) {
    peer.send(windowUpdateFrame(9_973));
    await peer.settled();
  }
  await Promise.all([1, 3, 5].map((streamId) => peer.next(endOf(streamId))));
  assert.deepEqual(
    [1, 3, 5].map((streamId) => bodyBytes(peer, streamId)),
    [size, size, size],
  );
});

test("the windows of streams count, from the beginning and when they change", async (t) => {
  const server = await startServer(t);
  const peer = await connectPeer(t, server.port, new Map([[setting.initialWindowSize, 100]]));
  peer.send(request(1, "/large/1000"));
  while (bodyBytes(peer, 1) < 100) await peer.settled();
  peer.send(settingsFrame(new Map([[setting.initialWindowSize, 150]])), request(3, "/large/1000"));
  while (bodyBytes(peer, 1) < 150 || bodyBytes(peer, 3) < 150) await peer.settled();
  peer.send(windowUpdateFrame(850, 1));
  await peer.next(endOf(1));
  assert.deepEqual([bodyBytes(peer, 1), bodyBytes(peer, 3)], [1_000, 150]);
});

test("who cancels what waits for the window lets the others have it, again and again", async (t) => {
  const server = await startServer(t);
  const peer = await connectPeer(t, server.port, new Map([[setting.initialWindowSize, 10_000_000]]));
  let window = windowBytes;
  for (let streamId = 1; streamId < 20; streamId += 4) {
    peer.send(request(streamId, "/large/200000"), request(streamId + 2, "/large/100000"));
    const received = () => bodyBytes(peer, streamId) + bodyBytes(peer, streamId + 2);
    while (received() < window) await peer.settled();
    peer.send(resetFrame(streamId, errorCode.cancel), windowUpdateFrame(300_000));
    await peer.next(endOf(streamId + 2));
    assert.equal(bodyBytes(peer, streamId + 2), 100_000);
    window += 300_000 - received();
  }
});

test("headers wait for no body of others", async (t) => {
  const server = await startServer(t);
  const peer = await connectPeer(t, server.port, new Map([[setting.initialWindowSize, 10_000_000]]));
  peer.send(request(1, "/large/100000"));
  while (bodyBytes(peer, 1) < windowBytes) await peer.settled();
  peer.send(request(3, "/echo"));
  const headers = await peer.next((frame) => frame.type === frameType.headers && frame.streamId === 3);
  assert.equal(peer.headersOf(headers)[":status"], "200");
});

test("a connection that Node has given up ends, whoever was left on it", async (t) => {
  const server = await startServer(t);
  const peer = await connectPeer(t, server.port);
  peer.send(request(1, "/taken"), request(3, "/echo"));
  await peer.settled();
  peer.send(headerFrames(5, requestHeaders("/echo"), false), windowUpdateFrame(0, 5), resetFrame(5, errorCode.cancel));
  await peer.next(({ type }) => type === frameType.goAway);
  await peer.closed;
  assert.equal(server.taken[0]?.isAborted, true);
});

test("headers of any characters arrive as they are, however their sender compresses them", async (t) => {
  const server = await startServer(t);
  const session = connect(`http://127.0.0.1:${server.port}`);
  t.after(() => session.destroy());
  await once(session, "connect");
  const visible = String.fromCharCode(...Array.from({ length: 95 }, (_, index) => 32 + index)).trim();
  for (let round = 0; round < 3; round++) {
    const headers = { "x-visible": visible, [`x-${round}`]: `${round}`.repeat(100 * round), "x-same": "same" };
    const stream = session.request({ ":method": "POST", ":path": `/taken/${round}`, ...headers });
    stream.on("error", () => undefined);
    await new Promise((resolve) => session.ping(Buffer.alloc(8), resolve));
    const taken = server.taken[round];
    for (const [name, value] of Object.entries(headers)) assert.equal(taken?.headers[name], value);
    assert.equal(taken?.headers[":path"], `/taken/${round}`);
  }
});

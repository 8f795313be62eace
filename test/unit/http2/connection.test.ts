/** What a connection takes and what it sends, frame by frame. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  errorCode,
  type Frame,
  flag,
  frame,
  frameType,
  goAwayFrame,
  headerFrames,
  resetFrame,
  setting,
  settingsFrame,
  windowUpdateFrame,
} from "../../../lib/http2/frames.ts";
import { headerBlock } from "../../../lib/http2/hpack.ts";
import { connectPeer, type Peer, requestHeaders, startServer, windowBytes } from "./peer.ts";

const answerHeaders = headerBlock([[":status", "200"]]);
const answerTrailers = headerBlock([["x-status", "fine"]]);

function request(streamId: number, path = "/taken", endStream = false): Buffer {
  return headerFrames(streamId, requestHeaders(path), endStream);
}

function data(streamId: number, payload: Buffer | string, endStream = false): Buffer {
  return frame({
    type: frameType.data,
    flags: endStream ? flag.endStream : 0,
    streamId,
    payload: Buffer.from(payload),
  });
}

const endsStream = ({ flags }: Frame): boolean => (flags & flag.endStream) !== 0;
const isOf = (type: number, streamId: number) => (received: Frame) =>
  received.type === type && received.streamId === streamId;

/** What has come of a stream's body. */
function bodyOf({ frames }: Peer, streamId: number): Buffer {
  return Buffer.concat(frames.filter(isOf(frameType.data, streamId)).map(({ payload }) => payload));
}

/** The code with which the server ends the connection. */
async function goAwayCode(peer: Peer): Promise<number> {
  const { payload } = await peer.next(({ type }) => type === frameType.goAway);
  return payload.readUInt32BE(4);
}

async function resetCode(peer: Peer, streamId: number): Promise<number> {
  const { payload } = await peer.next(isOf(frameType.reset, streamId));
  return payload.readUInt32BE();
}

test("a request is given with its headers and its body, and answered with headers, body and trailers", async (t) => {
  const server = await startServer(t);
  const peer = await connectPeer(t, server.port);
  peer.send(headerFrames(1, requestHeaders("/taken", { "x-some": "thing" }), false), data(1, "question", true));
  await peer.settled();
  const [taken] = server.taken;
  assert.equal(taken?.headers["x-some"], "thing");
  assert.deepEqual([Buffer.concat(taken?.chunks ?? []).toString(), taken?.isRead], ["question", true]);
  taken?.stream.answer(answerHeaders, Buffer.from("answer"), answerTrailers);
  // Said twice, heard once.
  taken?.stream.answerShortly(answerHeaders);
  const end = await peer.next((received) => received.streamId === 1 && endsStream(received));
  await peer.settled();
  assert.deepEqual(peer.headersOf(end), { "x-status": "fine" });
  assert.equal(bodyOf(peer, 1).toString(), "answer");
  assert.equal(peer.frames.filter(isOf(frameType.headers, 1)).length, 2);
  assert.equal(peer.frames.filter(({ type }) => type === frameType.reset).length, 0);
});

test("who is answered before having said all is told to stop, and may say what was on its way", async (t) => {
  const server = await startServer(t);
  const peer = await connectPeer(t, server.port);
  peer.send(request(1));
  await peer.settled();
  server.taken[0]?.stream.answerShortly(answerHeaders);
  assert.equal(await resetCode(peer, 1), errorCode.noError);
  peer.send(data(1, "more"), headerFrames(1, headerBlock([["x-late", "1"]]), true), resetFrame(1, errorCode.cancel));
  await peer.settled();
});

test("an answer waits for the windows of its stream and of the connection, and goes on when either grows", async (t) => {
  const server = await startServer(t);
  const peer = await connectPeer(t, server.port, new Map([[setting.initialWindowSize, 10]]));
  peer.send(request(1, "/taken", true));
  await peer.settled();
  const body = Buffer.from(Array.from({ length: windowBytes + 200 }, (_, index) => index % 251));
  server.taken[0]?.stream.answer(answerHeaders, body, answerTrailers);
  await peer.settled();
  assert.equal(bodyOf(peer, 1).length, 10);
  peer.send(windowUpdateFrame(20, 1));
  await peer.settled();
  assert.equal(bodyOf(peer, 1).length, 30);
  // The windows of streams that are there change as well, and may be below 0.
  peer.send(settingsFrame(new Map([[setting.initialWindowSize, 0]])), windowUpdateFrame(5, 1));
  await peer.settled();
  assert.equal(bodyOf(peer, 1).length, 30);
  peer.send(settingsFrame(new Map([[setting.initialWindowSize, 1_000_000]])));
  await peer.settled();
  assert.equal(bodyOf(peer, 1).length, windowBytes);
  peer.send(windowUpdateFrame(1_000));
  await peer.next((received) => received.streamId === 1 && endsStream(received));
  assert.deepEqual(bodyOf(peer, 1), body);
});

test("who goes on sending gets room for it, on the stream and on the connection", async (t) => {
  const server = await startServer(t);
  const peer = await connectPeer(t, server.port);
  const piece = Buffer.alloc(16_000);
  let [stream, connection] = [windowBytes, windowBytes];
  peer.send(request(1));
  for (let sent = 0; sent < 40; sent++) {
    await peer.settled();
    const grants = (streamId: number): number =>
      peer.frames
        .filter(isOf(frameType.windowUpdate, streamId))
        .reduce((sum, { payload }) => sum + payload.readUInt32BE(), 0);
    stream = windowBytes + grants(1) - sent * piece.length;
    connection = windowBytes + grants(0) - sent * piece.length;
    assert.ok(Math.min(stream, connection) >= piece.length, `${stream}, ${connection}`);
    peer.send(data(1, piece));
  }
});

test("what nobody reads fills the window, and more than that is refused", async (t) => {
  const server = await startServer(t);
  const peer = await connectPeer(t, server.port);
  const pieces = (count: number) => Array.from({ length: count }, () => data(1, Buffer.alloc(16_000)));
  peer.send(request(1, "/ignored"), ...pieces(4));
  await peer.settled();
  assert.equal(peer.frames.filter(isOf(frameType.windowUpdate, 1)).length, 0);
  peer.send(...pieces(1));
  assert.equal(await resetCode(peer, 1), errorCode.flowControlError);
});

test("more requests than are allowed at a time are refused, and others taken when there is room again", async (t) => {
  const server = await startServer(t, { maxConcurrentStreams: 2 });
  const peer = await connectPeer(t, server.port);
  peer.send(request(1), request(3, "/by-node"), request(5), request(7, "/by-node"));
  assert.deepEqual(
    [await resetCode(peer, 5), await resetCode(peer, 7)],
    [errorCode.refusedStream, errorCode.refusedStream],
  );
  peer.send(resetFrame(1, errorCode.cancel), request(9));
  await peer.settled();
  assert.deepEqual(
    server.taken.map(({ stream, isAborted }) => [stream.id, isAborted]),
    [
      [1, true],
      [9, false],
    ],
  );
});

test("who cancels, breaks the rules of a stream, or vanishes, is no longer answered", async (t) => {
  const server = await startServer(t);
  const peer = await connectPeer(t, server.port);
  peer.send(request(1), resetFrame(1, errorCode.cancel));
  peer.send(request(3, "/taken", true), data(3, "behind the end"));
  peer.send(request(5), headerFrames(5, headerBlock([["x-trailer", "without an end"]]), false));
  peer.send(request(7), windowUpdateFrame(0, 7));
  peer.send(request(9), windowUpdateFrame(2 ** 31 - 1, 9));
  peer.send(request(11));
  await peer.settled();
  const codes = await Promise.all([3, 5, 7, 9].map((streamId) => resetCode(peer, streamId)));
  const { streamClosed, protocolError, flowControlError } = errorCode;
  assert.deepEqual(codes, [streamClosed, protocolError, protocolError, flowControlError]);
  assert.deepEqual(
    server.taken.map(({ isAborted }) => isAborted),
    [true, true, true, true, true, false],
  );
  peer.socket.destroy();
  while (server.taken.at(-1)?.isAborted === false) await new Promise(setImmediate);
  for (const { stream } of server.taken) stream.answer(answerHeaders, Buffer.from("late"), answerTrailers);
});

test("a request may have trailers", async (t) => {
  const server = await startServer(t);
  const peer = await connectPeer(t, server.port);
  peer.send(request(1), data(1, "body"), headerFrames(1, headerBlock([["x-trailer", "1"]]), true));
  await peer.settled();
  assert.equal(server.taken[0]?.isRead, true);
});

test("headers that are not as they have to be, or that need more than is known here, go to Node", async (t) => {
  const server = await startServer(t);
  const peer = await connectPeer(t, server.port);
  const odd: readonly (readonly [string, string])[][] = [
    [["Upper", "case"]],
    [["connection", "close"]],
    [["te", "gzip"]],
    [[":path", "/twice"]],
    [["x-line", "one\ntwo"]],
    [
      ["x", "y"],
      [":authority", "late"],
    ],
  ];
  for (const [index, more] of odd.entries()) {
    const pseudo = [":method", "POST", ":scheme", "http", ":path", "/taken"];
    const first = pseudo.flatMap((name, at) => (at % 2 === 0 ? [[name, pseudo[at + 1] ?? ""] as const] : []));
    peer.send(headerFrames(2 * index + 1, headerBlock([...first, ...more]), true));
    assert.equal(await resetCode(peer, 2 * index + 1), errorCode.protocolError, JSON.stringify(more));
  }
  peer.send(
    headerFrames(21, requestHeaders("/taken", { "content-length": "4" }), false),
    data(21, "more than 4", true),
  );
  assert.equal(await resetCode(peer, 21), errorCode.protocolError);
  assert.equal(server.taken.length, 0);
});

const fatal: Readonly<Record<string, { send: readonly Buffer[]; code: number }>> = {
  "a number of a stream that went before": { send: [request(5), request(3)], code: errorCode.streamClosed },
  "an even number of a stream": { send: [request(2)], code: errorCode.protocolError },
  "data of a stream that was not begun": { send: [data(1, "x")], code: errorCode.protocolError },
  "data of no stream": { send: [data(0, "x")], code: errorCode.protocolError },
  "headers that others interrupt": {
    send: [frame({ type: frameType.headers, flags: 0, streamId: 1, payload: requestHeaders("/taken") }), data(1, "x")],
    code: errorCode.protocolError,
  },
  "a continuation of nothing": {
    send: [frame({ type: frameType.continuation, flags: 4, streamId: 1, payload: Buffer.alloc(1) })],
    code: errorCode.protocolError,
  },
  "headers without an end": {
    send: [
      frame({ type: frameType.headers, flags: 0, streamId: 1, payload: Buffer.alloc(16_000) }),
      ...Array.from({ length: 5 }, () =>
        frame({ type: frameType.continuation, flags: 0, streamId: 1, payload: Buffer.alloc(16_000) }),
      ),
    ],
    code: errorCode.enhanceYourCalm,
  },
  "headers that are not compressed as they say": {
    send: [headerFrames(1, Buffer.of(0xff), true)],
    code: errorCode.compressionError,
  },
  "pings without an end": {
    send: [
      Buffer.concat(
        Array.from({ length: 10_000 }, () =>
          frame({ type: frameType.ping, flags: 0, streamId: 0, payload: Buffer.alloc(8) }),
        ),
      ),
    ],
    code: errorCode.enhanceYourCalm,
  },
  "requests that are cancelled at once, without an end": {
    send: [
      Buffer.concat(
        Array.from({ length: 10_000 }, (_, index) => [request(2 * index + 1), resetFrame(2 * index + 1, 8)]).flat(),
      ),
    ],
    code: errorCode.enhanceYourCalm,
  },
  "a window that is too large": { send: [windowUpdateFrame(2 ** 31 - 1)], code: errorCode.flowControlError },
  "an initial window that is too large": {
    send: [settingsFrame(new Map([[setting.initialWindowSize, 2 ** 31]]))],
    code: errorCode.flowControlError,
  },
  "settings cut short": {
    send: [frame({ type: frameType.settings, flags: 0, streamId: 0, payload: Buffer.alloc(5) })],
    code: errorCode.frameSizeError,
  },
  "a promise": {
    send: [frame({ type: frameType.pushPromise, flags: 4, streamId: 1, payload: Buffer.alloc(8) })],
    code: errorCode.protocolError,
  },
};

for (const [name, { send, code }] of Object.entries(fatal)) {
  test(`a connection ends over ${name}, and its requests with it`, async (t) => {
    const server = await startServer(t);
    const peer = await connectPeer(t, server.port);
    peer.send(...send);
    assert.equal(await goAwayCode(peer), code);
    await peer.closed;
    assert.ok(server.taken.every(({ isAborted }) => isAborted));
  });
}

test("frames of types that nobody knows are left out", async (t) => {
  const server = await startServer(t);
  const peer = await connectPeer(t, server.port);
  peer.send(frame({ type: 0xbe, flags: 0xff, streamId: 77, payload: Buffer.from("?") }), request(1));
  peer.send(frame({ type: frameType.priority, flags: 0, streamId: 9, payload: Buffer.alloc(5) }));
  await peer.settled();
  assert.equal(server.taken.length, 1);
});

test("who does not read answers is not read from, and gets them all later", async (t) => {
  const server = await startServer(t, { maxConcurrentStreams: 10_000 });
  const peer = await connectPeer(t, server.port, new Map([[setting.initialWindowSize, 2 ** 31 - 1]]));
  peer.send(windowUpdateFrame(2 ** 31 - 1 - windowBytes));
  await peer.settled();
  peer.socket.pause();
  const body = Buffer.alloc(1024 * 1024);
  let [asked, answered] = [0, 0];
  const answerAll = (): void => {
    for (; answered < server.taken.length; answered++) {
      server.taken[answered]?.stream.answer(answerHeaders, body, answerTrailers);
    }
  };
  // Until the server does not take another: of 100 MB of answers most were not made.
  for (let idle = 0; idle < 20; idle++) {
    for (; asked <= answered; asked++) peer.send(request(2 * asked + 1, "/taken", true));
    await new Promise((resolve) => setTimeout(resolve, 10));
    if (server.taken.length > answered) idle = 0;
    answerAll();
  }
  assert.ok(answered < 30, `${answered} answers of 1 MB for a peer that reads none`);
  peer.socket.resume();
  await peer.settled();
  answerAll();
  for (let index = 0; index < answered; index++) {
    await peer.next((received) => received.streamId === 2 * index + 1 && endsStream(received));
    assert.equal(bodyOf(peer, 2 * index + 1).length, body.length);
  }
});

test("a ping for each answer is no flood: clients in Go measure by them", async (t) => {
  const server = await startServer(t, { cheapFrames: { atOnce: 5, perSecond: 0 } });
  const peer = await connectPeer(t, server.port);
  for (let streamId = 1; streamId < 100; streamId += 2) {
    peer.send(request(streamId, "/taken", true));
    await peer.settled();
    server.taken.at(-1)?.stream.answerShortly(answerHeaders);
  }
  for (let pings = 0; pings < 4; pings++) await peer.settled();
  await assert.rejects(async () => {
    for (let pings = 0; pings < 5; pings++) await peer.settled();
  });
  assert.equal(await goAwayCode(peer), errorCode.enhanceYourCalm);
});

test("a connection that is closed sends all of its last answer, however slowly that is taken", async (t) => {
  const server = await startServer(t);
  const peer = await connectPeer(t, server.port, new Map([[setting.initialWindowSize, 2 ** 31 - 1]]));
  peer.send(windowUpdateFrame(2 ** 31 - 1 - windowBytes), request(1, "/taken", true));
  await peer.settled();
  peer.socket.pause();
  const body = Buffer.alloc(16 * 1024 * 1024, "x");
  server.taken[0]?.stream.answer(answerHeaders, body, answerTrailers);
  server.connections[0]?.close();
  // Longer than a peer has to go once it has been sent all.
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  peer.socket.resume();
  await peer.next((received) => received.streamId === 1 && endsStream(received));
  assert.equal(bodyOf(peer, 1).length, body.length);
  await peer.closed;
});

test("a connection that is closed answers what it has, looks at nothing else, and ends", async (t) => {
  const server = await startServer(t);
  const peer = await connectPeer(t, server.port);
  peer.send(request(1, "/taken", true), request(3, "/by-node"));
  await peer.settled();
  server.connections[0]?.close();
  const { payload } = await peer.next(({ type }) => type === frameType.goAway);
  assert.deepEqual([payload.readUInt32BE(), payload.readUInt32BE(4)], [3, errorCode.noError]);
  peer.send(request(5), data(5, "too late", true), data(3, "still", true));
  await peer.next((received) => received.streamId === 3 && endsStream(received));
  server.taken[0]?.stream.answer(answerHeaders, Buffer.from("still"), answerTrailers);
  await peer.closed;
  assert.deepEqual(
    [bodyOf(peer, 1).toString(), bodyOf(peer, 3).toString(), server.taken.length],
    ["still", "still", 1],
  );
});

test("a peer that says goodbye gets what it waits for", async (t) => {
  const server = await startServer(t);
  const peer = await connectPeer(t, server.port);
  peer.send(request(1, "/taken", true), goAwayFrame(0, errorCode.noError));
  await peer.settled();
  server.taken[0]?.stream.answer(answerHeaders, Buffer.from("goodbye"), answerTrailers);
  await peer.closed;
  assert.equal(bodyOf(peer, 1).toString(), "goodbye");
});

/** Peers that send anything, in order and out of it, stop in the middle, and vanish. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import {
  flag,
  frame,
  frameType,
  goAwayFrame,
  headerFrames,
  preface,
  resetFrame,
  setting,
  settingsFrame,
  windowUpdateFrame,
} from "../../../lib/http2/frames.ts";
import { headerBlock } from "../../../lib/http2/hpack.ts";
import { createRandom, type Random } from "../../../lib/nn/random.ts";
import { startServer } from "../rpc/server-fixture.ts";

const peers = 150;
const atOnce = 5;
const mostFrames = 50;

const paths = [
  "/healthz",
  "/nowhere",
  "/grpc.health.v1.Health/Watch",
  "/millrace.v1.PredictionService/Predict",
  "/millrace.v1.PredictionService/GetModel",
  "/millrace.v1.PipelineService/WatchRun",
];
const methods = ["POST", "POST", "POST", "GET", "OPTIONS"];
const contentTypes = ["application/grpc", "application/grpc", "application/json", "application/connect+proto"];

function grpcMessage(bytes: Uint8Array): Buffer {
  const message = Buffer.alloc(5 + bytes.length);
  message.writeUInt32BE(bytes.length, 1);
  message.set(bytes, 5);
  return message;
}

/** Requests that are right, wait in their handlers or are answered without an end, and what is none. */
const bodies = [
  grpcMessage(Buffer.alloc(0)),
  grpcMessage(Buffer.from([0x0a, 3, ...Buffer.from("cat")])),
  grpcMessage(Buffer.from([0x0a, 4, ...Buffer.from("wait")])),
  grpcMessage(Buffer.from([0x0a, 7, ...Buffer.from("endless")])),
  Buffer.alloc(16_000),
  Buffer.from("{}"),
];

/** What a peer sends next; nothing of it breaks a rule if it is `wellBehaved`, as far as that is known without looking at what was sent before. */
function createFrames(random: Random, wellBehaved: boolean): () => Buffer {
  const pick = <T>(values: readonly T[]): T => values[random.integer(values.length)] as T;
  let nextId = 1;
  const someId = (): number => Math.max(1, nextId - 2 * (1 + random.integer(4)));
  const headers = () =>
    headerBlock([
      [":method", pick(methods)],
      [":scheme", "http"],
      [":path", pick(paths)],
      [":authority", "test"],
      ["content-type", pick(contentTypes)],
      ["te", "trailers"],
    ]);
  const garbage = (): Buffer => {
    const payload = Buffer.from(Array.from({ length: random.integer(40) }, () => random.integer(256)));
    return frame({ type: random.integer(12), flags: random.integer(256), streamId: random.integer(12), payload });
  };
  const kinds: readonly (() => Buffer)[] = [
    ...Array.from({ length: 6 }, () => () => {
      nextId += 2;
      return headerFrames(nextId - 2, headers(), random.uniform() < 0.3);
    }),
    ...Array.from({ length: 5 }, () => () => {
      const flags = random.uniform() < 0.6 ? flag.endStream : 0;
      return frame({ type: frameType.data, flags, streamId: someId(), payload: pick(bodies) });
    }),
    () => windowUpdateFrame(1 + random.integer(100_000), random.uniform() < 0.5 ? 0 : someId()),
    () => resetFrame(someId(), random.integer(14)),
    () => settingsFrame(new Map([[setting.initialWindowSize, pick([0, 10, 65_535, 2 ** 20])]])),
    () => frame({ type: frameType.ping, flags: 0, streamId: 0, payload: Buffer.alloc(8) }),
    () => headerFrames(someId(), headerBlock([["x-trailer", "1"]]), true),
    () => (random.uniform() < 0.1 ? goAwayFrame(0, 0) : Buffer.alloc(0)),
    ...(wellBehaved ? [] : [garbage]),
  ];
  return () => pick(kinds)();
}

async function visit(port: number, random: Random): Promise<void> {
  const wellBehaved = random.uniform() < 0.6;
  const next = createFrames(random, wellBehaved);
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => undefined);
  // Some read what they get, for a while.
  let received = 0;
  const most = random.uniform() < 0.8 ? 2_000_000 : 0;
  if (most > 0) {
    socket.on("data", (chunk: Buffer) => {
      received += chunk.length;
      if (received > most) socket.pause();
    });
  }
  await once(socket, "connect");
  socket.write(Buffer.concat([preface, settingsFrame(new Map())]));
  for (let left = random.integer(mostFrames); left > 0 && !socket.destroyed; left--) {
    const bytes = next();
    socket.write(wellBehaved || random.uniform() > 0.05 ? bytes : bytes.subarray(0, random.integer(bytes.length + 1)));
    if (random.uniform() < 0.3) await nextTurn();
  }
  if (random.uniform() < 0.5) socket.end();
  await nextTurn();
  socket.destroy();
}

test("whatever peers send, the server answers others, and holds nothing of them", async (t) => {
  const server = await startServer(t);
  for (let seed = 1; seed <= peers; seed += atOnce) {
    await Promise.all(Array.from({ length: atOnce }, (_, index) => visit(server.port, createRandom(seed + index))));
    assert.equal((await fetch(`${server.url}/healthz`)).status, 200, `after the peers from seed ${seed} on`);
  }
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../../lib/errors.ts";
import { streamUpdates } from "../../../lib/rpc/stream-updates.ts";

const nobodyLeaves = new AbortController().signal;

async function collect<T>(updates: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const update of updates) all.push(update);
  return all;
}

test("all that the work sends arrives in order, and the stream ends with the work", async () => {
  const updates = streamUpdates<number>(nobodyLeaves, async (send) => {
    send(1);
    await new Promise(setImmediate);
    send(2);
    send(3);
  });
  assert.deepEqual(await collect(updates), [1, 2, 3]);
});

test("work that fails ends the stream with its error, after what it sent", async () => {
  const seen: number[] = [];
  const updates = streamUpdates<number>(nobodyLeaves, async (send) => {
    send(1);
    throw new AppError("DATASET_INVALID", "no images");
  });
  await assert.rejects(async () => {
    for await (const update of updates) seen.push(update);
  }, /no images/);
  assert.deepEqual(seen, [1]);
});

test("a caller that goes away, or stops reading, aborts the work", async () => {
  const caller = new AbortController();
  const waiting = (send: (n: number) => void, signal: AbortSignal) =>
    new Promise<void>((_, reject) => {
      send(1);
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
  const left = collect(streamUpdates<number>(caller.signal, waiting));
  caller.abort(new AppError("CANCELLED", "gone"));
  await assert.rejects(left, /gone/);

  let aborted = false;
  const stopped = streamUpdates<number>(nobodyLeaves, async (send, signal) => {
    signal.addEventListener("abort", () => {
      aborted = true;
    });
    await waiting(send, signal);
  });
  for await (const first of stopped) {
    assert.equal(first, 1);
    break;
  }
  assert.equal(aborted, true);
});

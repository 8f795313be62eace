import assert from "node:assert/strict";
import { test } from "node:test";
import { createRandom } from "../../../lib/nn/random.ts";
import { createServiceTimes } from "../../../services/prediction/service-times.ts";

interface Work {
  readonly answered: number;
  readonly loopMs: number;
  /** Of the batch. */
  readonly runMs: number;
  /** Of each. */
  readonly prepareMs: number;
  readonly wasIdle: boolean;
}

/** Times of a server whose loop is busy for as long as it is told. */
function startTimes(parallel = 4) {
  let busyMs = 0;
  const times = createServiceTimes({ parallel, loopBusyMs: () => busyMs });
  /** Some requests are answered in one batch. */
  const serve = ({ answered = 1, loopMs = 0, runMs = 0, prepareMs = 0, wasIdle = false }: Partial<Work>) => {
    if (wasIdle) times.noteBegin();
    for (let item = 0; item < answered; item++) times.notePrepared(prepareMs);
    busyMs += loopMs;
    times.noteRun(answered, runMs);
  };
  const serveOften = (work: Partial<Work>) => {
    for (let batch = 0; batch < 1_000; batch++) serve(work);
  };
  return { times, serve, serveOften, idle: (ms: number) => (busyMs += ms) };
}

const assertNear = (actual: number, expected: number) =>
  assert.ok(Math.abs(actual - expected) < 0.01 * expected, `${actual} is not about ${expected}`);

test("what is ahead takes as long as the busiest part of the server needs for it", () => {
  // Four are prepared at a time, so that of ten that are ahead seven have to be done before the next can begin.
  const network = startTimes();
  network.serveOften({ answered: 8, loopMs: 4, runMs: 16, prepareMs: 1 });
  assertNear(network.times.waitMs(10), 20);
  const loop = startTimes();
  loop.serveOften({ answered: 8, loopMs: 16, runMs: 4, prepareMs: 1 });
  assertNear(loop.times.waitMs(10), 14);
  const decoders = startTimes();
  decoders.serveOften({ answered: 8, loopMs: 4, runMs: 4, prepareMs: 20 });
  assertNear(decoders.times.waitMs(10), 35);
  assert.ok(decoders.times.waitMs(3) < 5, "who finds a decoder free does not wait for one");
});

test("an item costs the same however few there are: a request alone makes nobody expect a long wait", () => {
  const { times, serve, idle } = startTimes();
  for (let request = 0; request < 500; request++) {
    idle(1_000);
    serve({ loopMs: 0.5, runMs: 0.4, prepareMs: 1, wasIdle: true });
  }
  assertNear(times.waitMs(20), 8.5);
});

test("a loop that is busy with refusing lets in as many as can be prepared at a time", () => {
  const { times, serveOften } = startTimes();
  serveOften({ loopMs: 1_000, runMs: 0.2, prepareMs: 1 });
  assert.ok(times.waitMs(3) < 1, `${times.waitMs(3)} ms`);
  assertNear(times.waitMs(4), 1_000);
});

test("a first run that is slow is soon forgotten", () => {
  const { times, serve } = startTimes();
  serve({ loopMs: 50, runMs: 100, prepareMs: 50 });
  assert.ok(times.waitMs(10) < 20, `${times.waitMs(10)} ms after it`);
  for (let batch = 0; batch < 50; batch++) serve({ answered: 4, loopMs: 2, runMs: 1, prepareMs: 1 });
  assert.ok(times.waitMs(10) < 6, `${times.waitMs(10)} ms after 200 images`);
});

test("an expected wait is never negative, and never shorter for more items", () => {
  for (let seed = 1; seed <= 50; seed++) {
    const random = createRandom(seed);
    const { times, serve, idle } = startTimes(1 + random.integer(8));
    for (let step = 0; step < 200; step++) {
      idle(random.integer(50));
      const answered = random.integer(40);
      const work = { loopMs: random.integer(30), runMs: random.integer(30), prepareMs: random.integer(30) };
      serve({ answered, wasIdle: random.integer(4) === 0, ...work });
      const waits = [0, 1, 2, 5, 20, 100].map(times.waitMs);
      assert.equal(waits[0], 0, `seed ${seed}`);
      assert.deepEqual(
        waits,
        waits.toSorted((a, b) => a - b),
        `seed ${seed}`,
      );
      assert.ok(
        waits.every((wait) => wait >= 0 && Number.isFinite(wait)),
        `seed ${seed}: ${waits}`,
      );
    }
  }
});

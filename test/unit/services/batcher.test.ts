import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { AppError } from "../../../lib/errors.ts";
import type { SubmitOptions } from "../../../services/prediction/admission.ts";
import { createBatcher, type Dispatch } from "../../../services/prediction/batcher.ts";
import type { Priority } from "../../../services/prediction/priority-queue.ts";
import { codeOf, double, gatedBatcher, outputOf, runMs, serveAlone, settings } from "../../helpers/gated-batcher.ts";

test("what comes in during a run forms the next batch, in its order and up to the limit", async () => {
  const { batcher, batches, dispatches, letGo } = gatedBatcher();
  const answers = Promise.all([1, 2, 3, 4, 5, 6].map((input) => outputOf(batcher, input)));
  for (let run = 0; run < 3; run++) await letGo();
  assert.deepEqual(await answers, [2, 4, 6, 8, 10, 12]);
  assert.deepEqual(batches, [[1], [2, 3, 4, 5], [6]]);
  assert.deepEqual(
    dispatches.map(({ reason, size }) => [reason, size]),
    [
      ["idle", 1],
      ["full", 4],
      ["idle", 1],
    ],
  );
});

test("with a delay, a batch waits until it is full or its oldest item has waited long enough", async () => {
  const dispatches: Dispatch[] = [];
  const batcher = createBatcher<number, number>({
    settings: { ...settings, maxDelayMs: 20 },
    run: double,
    onDispatch: (dispatch) => dispatches.push(dispatch),
  });
  assert.deepEqual(await Promise.all([1, 2].map((input) => outputOf(batcher, input))), [2, 4]);
  assert.deepEqual(await Promise.all([1, 2, 3, 4].map((input) => outputOf(batcher, input))), [2, 4, 6, 8]);
  assert.deepEqual(
    dispatches.map(({ reason, size }) => [reason, size]),
    [
      ["delay", 2],
      ["full", 4],
    ],
  );
  const [first] = dispatches;
  assert.ok((first?.waitedMs ?? 0) >= 20, `waited ${first?.waitedMs} ms`);
});

/** Items of the batches that a network begins before it has ended one, of so many that come. */
async function begunBeforeOneEnds(inputMs: number, items: number): Promise<number[]> {
  const gated = gatedBatcher({}, { inputMs });
  const { batcher, batches, letGo } = gated;
  await serveAlone(gated, 500);
  batches.length = 0;
  const answers = Array.from({ length: items }, (_, input) => outputOf(batcher, input));
  await delay(0);
  const begun = batches.map(({ length }) => length);
  for (let run = 0; run < items; run++) await letGo();
  await Promise.all(answers);
  return begun;
}

test("a quick network is given the next batch while it runs one, if that is full, and never a third", async () => {
  // The first item finds nothing to wait for.
  assert.deepEqual(await begunBeforeOneEnds(1, 4), [1]);
  assert.deepEqual(await begunBeforeOneEnds(1, 5), [1, settings.maxBatchSize]);
  assert.deepEqual(await begunBeforeOneEnds(1, 20), [1, settings.maxBatchSize]);
});

test("a slow network is not, so that who comes with priority waits for one batch alone", async () => {
  assert.deepEqual(await begunBeforeOneEnds(runMs, 20), [1]);
});

test("urgent items are taken first", async () => {
  const { batcher, batches, letGo } = gatedBatcher({ maxBatchSize: 2 });
  const wanted: [number, Priority][] = [
    [0, "normal"],
    [1, "low"],
    [2, "normal"],
    [3, "high"],
    [4, "normal"],
    [5, "high"],
  ];
  const answers = Promise.all(wanted.map(([input, priority]) => outputOf(batcher, input, priority)));
  for (let run = 0; run < 4; run++) await letGo();
  await answers;
  assert.deepEqual(batches, [[0], [3, 5], [2, 4], [1]]);
});

test("so many are prepared at a time, the urgent first, and those that are cancelled before never", async () => {
  const { batcher, letGo } = gatedBatcher();
  const begun: number[] = [];
  const finish: (() => void)[] = [];
  const submit = (input: number, options: SubmitOptions = {}) =>
    batcher.submit(() => {
      begun.push(input);
      return new Promise((resolve) => finish.push(() => resolve(input)));
    }, options);
  const leave = new AbortController();
  const answers = [submit(0), submit(1), submit(2), submit(3, { priority: "high" })];
  const cancelled = codeOf(submit(4, { signal: leave.signal, priority: "high" }));
  leave.abort(new AppError("CANCELLED", "the client went away"));
  assert.deepEqual([begun, batcher.queueLength, await cancelled], [[0, 1], 4, "CANCELLED"]);
  finish[0]?.();
  await delay(0);
  assert.deepEqual(begun, [0, 1, 3]);
  for (const end of finish) end();
  await delay(0);
  for (const end of finish) end();
  for (let run = 0; run < 3; run++) await letGo();
  assert.deepEqual(
    [(await Promise.all(answers)).map(({ output }) => output), begun],
    [
      [0, 2, 4, 6],
      [0, 1, 3, 2],
    ],
  );
});

test("not many more are prepared than the next batch takes", async () => {
  const { batcher, letGo } = gatedBatcher();
  let prepared = 0;
  const answers = Array.from({ length: 20 }, (_, input) =>
    batcher.submit(() => {
      prepared++;
      return input;
    }),
  );
  await delay(0);
  assert.equal(prepared, 1 + settings.maxBatchSize);
  for (let run = 0; run < 6; run++) await letGo();
  assert.equal((await Promise.all(answers)).length, 20);
});

test("an item whose signal aborts leaves the queue, and makes room", async () => {
  const { batcher, batches, letGo } = gatedBatcher({ maxQueueLength: 1 });
  const first = outputOf(batcher, 1);
  await delay(0);
  const leave = new AbortController();
  const left = codeOf(batcher.submit(() => 2, leave));
  await delay(0);
  leave.abort(new AppError("CANCELLED", "the client went away"));
  assert.equal(await left, "CANCELLED");
  const third = outputOf(batcher, 3);
  await letGo();
  await letGo();
  assert.deepEqual([await first, await third, batches], [2, 6, [[1], [3]]]);
});

test("items of a request that is over leave the queue, whether they wait or are prepared", async () => {
  const { batcher, batches, letGo } = gatedBatcher();
  const running = outputOf(batcher, 0);
  let prepared = (_input: number): void => {};
  const slow = new Promise<number>((resolve) => (prepared = resolve));
  const places = batcher.admit({ count: 3 });
  const items = [() => slow, () => 2, () => 3].map((prepare) => codeOf(places.submit(prepare)));
  const other = outputOf(batcher, 9);
  places[Symbol.dispose]();
  assert.deepEqual(await Promise.all(items), ["CANCELLED", "CANCELLED", "CANCELLED"]);
  prepared(1);
  for (let run = 0; run < 2; run++) await letGo();
  assert.deepEqual([await running, await other], [0, 18]);
  assert.deepEqual(batches, [[0], [9]]);
  assert.equal(batcher.queueLength, 0);
});

test("an item whose time is over while it is being run is answered then, not when the run ends", async () => {
  const { batcher, letGo } = gatedBatcher();
  const leave = new AbortController();
  const late = codeOf(batcher.submit(() => 1, leave));
  await delay(0);
  leave.abort(new AppError("DEADLINE_EXCEEDED", "time is over"));
  assert.equal(await late, "DEADLINE_EXCEEDED");
  await letGo();
});

test("an item that was cancelled before it came never waits", async () => {
  const { batcher, batches } = gatedBatcher();
  const signal = AbortSignal.abort(new AppError("CANCELLED", "gone"));
  assert.equal(await codeOf(batcher.submit(() => 1, { signal })), "CANCELLED");
  assert.deepEqual([batcher.queueLength, batches.length], [0, 0]);
});

test("what is being prepared holds a place, even when nobody waits for it any more", async () => {
  const { batcher } = gatedBatcher({ maxQueueLength: 1 });
  const leave = new AbortController();
  let prepared = (_input: number) => {};
  const preparation = new Promise<number>((resolve) => {
    prepared = resolve;
  });
  const left = codeOf(batcher.submit(() => preparation, leave));
  await delay(0);
  leave.abort(new AppError("CANCELLED", "the client went away"));
  assert.deepEqual(
    [await left, batcher.queueLength, await codeOf(batcher.submit(() => 2))],
    ["CANCELLED", 1, "QUEUE_FULL"],
  );
  prepared(1);
  await delay(0);
  assert.equal(batcher.queueLength, 0);
});

test("settings change for items that wait already", async () => {
  const { batcher, batches, letGo } = gatedBatcher({ maxDelayMs: 60_000 });
  const answers = Promise.all([1, 2].map((input) => outputOf(batcher, input)));
  await delay(0);
  assert.equal(batches.length, 0);
  batcher.settings = { ...batcher.settings, maxDelayMs: 0 };
  await letGo();
  assert.deepEqual([await answers, batches], [[2, 4], [[1, 2]]]);
});

test("settings that cannot be are refused by name", () => {
  const batcher = createBatcher<number, number>({ settings, run: double });
  for (const [field, value] of [
    ["maxBatchSize", 0],
    ["maxDelayMs", -1],
    ["maxQueueLength", 0.5],
    ["maxWaitMs", Number.NaN],
  ] as const) {
    assert.throws(
      () => {
        batcher.settings = { ...settings, [field]: value };
      },
      { code: "INVALID_REQUEST", message: new RegExp(`^${field} is ${value}`) },
    );
  }
  assert.deepEqual(batcher.settings, settings);
});

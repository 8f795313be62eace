import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { AppError } from "../../../lib/errors.ts";
import { createRandom, type Random } from "../../../lib/nn/random.ts";
import type { SubmitOptions } from "../../../services/prediction/admission.ts";
import type { BatchSettings } from "../../../services/prediction/batch-settings.ts";
import { type Batcher, createBatcher, type Dispatch } from "../../../services/prediction/batcher.ts";
import { type Priority, priorities } from "../../../services/prediction/priority-queue.ts";

const settings: BatchSettings = { maxBatchSize: 4, maxDelayMs: 0, maxQueueLength: 100, maxWaitMs: 60_000 };
const double = async (inputs: readonly number[]) => ({ outputs: inputs.map((input) => 2 * input), durationMs: 1 });

/** What a run says that it took, for each of its inputs. */
const runMs = 10;

/** A batcher whose runs wait until they are let go, one after another. */
function gatedBatcher(changes: Partial<BatchSettings> = {}) {
  const batches: (readonly number[])[] = [];
  const dispatches: Dispatch[] = [];
  const gates: (() => void)[] = [];
  const batcher = createBatcher<number, number>({
    settings: { ...settings, ...changes },
    maxPreparing: 2,
    async run(inputs) {
      batches.push(inputs);
      await new Promise<void>((resolve) => gates.push(resolve));
      return { ...(await double(inputs)), durationMs: runMs * inputs.length };
    },
    onDispatch: (dispatch) => dispatches.push(dispatch),
  });
  const letGo = async (): Promise<void> => {
    await delay(0);
    gates.shift()?.();
    await delay(0);
  };
  return { batcher, batches, dispatches, letGo };
}

const outputOf = async (batcher: Batcher<number, number>, input: number, priority?: Priority): Promise<number> =>
  (await batcher.submit(() => input, priority && { priority })).output;

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "no error",
    (error) => AppError.from(error).code,
  );
}

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

test("one item too many is refused at once, with the time to wait", async () => {
  const { batcher, letGo } = gatedBatcher({ maxQueueLength: 2 });
  const first = outputOf(batcher, 1);
  await delay(0);
  const others = [2, 3].map((input) => outputOf(batcher, input));
  const prepare = () => assert.fail("it was prepared");
  const error = AppError.from(await batcher.submit(prepare).catch((thrown: unknown) => thrown));
  assert.deepEqual([error.code, error.status, error.retryable], ["QUEUE_FULL", "resource_exhausted", true]);
  assert.ok(Number(error.details.retryDelayMs) > 0);
  // To make and encode an error is a good part of what it costs to refuse.
  assert.equal(await batcher.submit(prepare).catch((thrown: unknown) => thrown), error, "the same error for all");
  await letGo();
  await letGo();
  assert.deepEqual(await Promise.all([first, ...others]), [2, 4, 6]);
});

/** Lets so many items through, one at a time, which teaches it what one takes. */
async function serveAlone({ batcher, letGo }: ReturnType<typeof gatedBatcher>, count: number): Promise<void> {
  for (let item = 0; item < count; item++) {
    const answer = outputOf(batcher, item);
    await letGo();
    await answer;
  }
}

test("who would wait for too long is refused, with the time that what is ahead takes; who finds nothing ahead is not", async () => {
  const gated = gatedBatcher({ maxBatchSize: 1, maxWaitMs: 25 });
  const { batcher, letGo } = gated;
  await serveAlone(gated, 500);
  const admitted = [1, 2, 3].map((input) => outputOf(batcher, input));
  const error = AppError.from(await outputOf(batcher, 4).catch((thrown: unknown) => thrown));
  assert.equal(error.code, "QUEUE_FULL");
  const retryDelayMs = Number(error.details.retryDelayMs);
  assert.ok(retryDelayMs > 25 && retryDelayMs <= 3 * runMs, `${retryDelayMs} ms`);
  // Three of normal priority are no more than one to an urgent item: the one that is being run.
  const urgent = outputOf(batcher, 5, "high");
  for (let run = 0; run < 4; run++) await letGo();
  assert.deepEqual(await Promise.all([...admitted, urgent]), [2, 4, 6, 10]);
  batcher.settings = { ...batcher.settings, maxWaitMs: 0 };
  const alone = outputOf(batcher, 6);
  await letGo();
  assert.equal(await alone, 12);
});

test("nobody is refused for the wait while the next batch has room", async () => {
  const gated = gatedBatcher({ maxWaitMs: 0 });
  const { batcher, letGo } = gated;
  await serveAlone(gated, 500);
  // One is run, four wait for it to end.
  const admitted = [1, 2, 3, 4, 5].map((input) => outputOf(batcher, input));
  assert.equal(await codeOf(outputOf(batcher, 6)), "QUEUE_FULL");
  for (let run = 0; run < 2; run++) await letGo();
  assert.deepEqual(await Promise.all(admitted), [2, 4, 6, 8, 10]);
});

test("who is patient may wait for longer, as long as the queue has room", async () => {
  const gated = gatedBatcher({ maxBatchSize: 1, maxWaitMs: 0, maxQueueLength: 3 });
  const { batcher, letGo } = gated;
  await serveAlone(gated, 500);
  const patient = (input: number) => batcher.submit(() => input, { isPatient: true });
  const admitted = [1, 2, 3, 4].map(patient);
  assert.equal(await codeOf(patient(5)), "QUEUE_FULL");
  for (let run = 0; run < 4; run++) await letGo();
  assert.deepEqual(
    (await Promise.all(admitted)).map(({ output }) => output),
    [2, 4, 6, 8],
  );
});

test("who has less time left than what is ahead will take is refused at once", async () => {
  const gated = gatedBatcher();
  const { batcher, letGo } = gated;
  await serveAlone(gated, 500);
  const admitted = [1, 2, 3].map((input) => outputOf(batcher, input));
  assert.equal(await codeOf(batcher.submit(() => 4, { timeoutMs: 2 * runMs })), "QUEUE_FULL");
  const patient = batcher.submit(() => 5, { timeoutMs: 4 * runMs });
  for (let run = 0; run < 3; run++) await letGo();
  await Promise.all([...admitted, patient]);
});

test("items that come together are admitted together, and do not count as ahead of each other", async () => {
  const gated = gatedBatcher({ maxBatchSize: 1, maxWaitMs: 25, maxQueueLength: 12 });
  const { batcher, letGo } = gated;
  await serveAlone(gated, 500);
  const places = batcher.admit({ count: 10 });
  const answers = Promise.all(Array.from({ length: 10 }, (_, input) => places.submit(() => input)));
  assert.equal(batcher.queueLength, 9);
  assert.throws(() => batcher.admit({ count: 4 }), { code: "QUEUE_FULL" });
  for (let run = 0; run < 10; run++) await letGo();
  assert.deepEqual(
    (await answers).map(({ output }) => output),
    Array.from({ length: 10 }, (_, input) => 2 * input),
  );
  assert.equal(batcher.queueLength, 0);
});

test("a place is held until an item takes it or it is given back", () => {
  const { batcher } = gatedBatcher({ maxQueueLength: 2 });
  const places = batcher.admit({ count: 2 });
  assert.throws(() => batcher.admit(), { code: "QUEUE_FULL" });
  places[Symbol.dispose]();
  places[Symbol.dispose]();
  assert.equal(batcher.queueLength, 0);
  batcher.admit();
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

/** A batch with one of these fails as a whole, as when a network is run on it. */
const isBad = (input: number): boolean => input % 7 === 0;
/** These never get into a batch. */
const isUnreadable = (input: number): boolean => input % 11 === 3;

test("whatever sizes, failures and cancellations: every item gets its own answer, its own error, or none", async () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = createRandom(seed);
    const maxBatchSize = 1 + random.integer(9);
    const maxPreparing = 1 + random.integer(5);
    const ran = new Map<number, number>();
    const cancelled = new Set<number>();
    const preparing = new Set<number>();
    const batcher = createBatcher<number, number>({
      settings: { maxBatchSize, maxDelayMs: random.integer(3), maxQueueLength: 30, maxWaitMs: random.integer(40) },
      maxPreparing,
      async run(inputs) {
        assert.ok(inputs.length <= maxBatchSize, `seed ${seed}: a batch of ${inputs.length}`);
        for (const input of inputs) {
          assert.ok(!cancelled.has(input), `seed ${seed}: ${input} was run although it had been cancelled`);
          ran.set(input, (ran.get(input) ?? 0) + 1);
        }
        await delay(random.integer(3));
        if (inputs.some(isBad)) throw new AppError("IMAGE_UNREADABLE", `bad among ${inputs}`);
        return double(inputs);
      },
    });
    const prepare = async (input: number): Promise<number> => {
      assert.ok(!cancelled.has(input), `seed ${seed}: ${input} was prepared although it had been cancelled`);
      assert.ok(!preparing.has(input) && !ran.has(input), `seed ${seed}: ${input} was prepared twice`);
      preparing.add(input);
      assert.ok(preparing.size <= maxPreparing, `seed ${seed}: ${preparing.size} were prepared at a time`);
      await delay(random.integer(2));
      preparing.delete(input);
      if (isUnreadable(input)) throw new AppError("IMAGE_UNREADABLE", `cannot prepare ${input}`);
      return input;
    };
    const inputs = Array.from({ length: 100 }, (_, input) => input);
    await Promise.all(inputs.map((input) => submitOne(batcher, { input, prepare, random, cancelled, seed })));
    // Those that were cancelled while they were prepared are still being prepared.
    for (const end = Date.now() + 1_000; batcher.queueLength > 0 && Date.now() < end; ) await delay(1);
    assert.equal(batcher.queueLength, 0, `seed ${seed}`);
    // Once, or a second time alone after a batch that failed.
    for (const [input, count] of ran) assert.ok(count <= 2, `seed ${seed}: ${input} was run ${count} times`);
    // After the burst it is as it was before: nothing is ahead, and nobody is refused.
    assert.equal(await outputOf(batcher, 101), 202, `seed ${seed}`);
  }
});

interface Submission {
  readonly input: number;
  readonly prepare: (input: number) => Promise<number>;
  readonly random: Random;
  readonly cancelled: Set<number>;
  readonly seed: number;
}

async function submitOne(batcher: Batcher<number, number>, { input, prepare, random, cancelled, seed }: Submission) {
  const controller = new AbortController();
  const priority = priorities[random.integer(priorities.length)];
  const cancelAfterMs = random.integer(4) === 0 ? random.integer(6) : undefined;
  // Some are prepared at once.
  const prepareNow = (): number => {
    if (isUnreadable(input)) throw new AppError("IMAGE_UNREADABLE", `cannot prepare ${input}`);
    return input;
  };
  const isQuick = random.integer(3) === 0;
  await delay(random.integer(10));
  const result = batcher.submit(isQuick ? prepareNow : () => prepare(input), {
    signal: controller.signal,
    ...(priority && { priority }),
  });
  let abortedFirst = false;
  if (cancelAfterMs !== undefined) {
    void delay(cancelAfterMs).then(() => {
      abortedFirst = true;
      cancelled.add(input);
      controller.abort(new AppError("CANCELLED", "not wanted any more"));
    });
  }
  try {
    const { output, queuedMs } = await result;
    assert.ok(!isBad(input) && !isUnreadable(input), `seed ${seed}: ${input} has an answer`);
    assert.equal(output, 2 * input, `seed ${seed}`);
    assert.ok(queuedMs >= 0);
  } catch (thrown) {
    const { code, message } = AppError.from(thrown);
    if (code === "CANCELLED") assert.ok(abortedFirst, `seed ${seed}`);
    else if (isUnreadable(input) && code !== "QUEUE_FULL")
      assert.equal(message, `cannot prepare ${input}`, `seed ${seed}`);
    else if (code === "IMAGE_UNREADABLE") assert.equal(message, `bad among ${input}`, `seed ${seed}`);
    else assert.equal(code, "QUEUE_FULL", `seed ${seed}: ${message}`);
  }
}

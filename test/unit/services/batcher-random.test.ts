/** Batching with random sizes, failures and cancellations. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { AppError } from "../../../lib/errors.ts";
import { createRandom, type Random } from "../../../lib/nn/random.ts";
import { type Batcher, createBatcher } from "../../../services/prediction/batcher.ts";
import { priorities } from "../../../services/prediction/priority-queue.ts";
import { double, outputOf } from "../../helpers/gated-batcher.ts";

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
    // What `run` and `prepare` throw is an item's error to the batcher, which deals with it: it would fail no test.
    const violations: string[] = [];
    const demand = (holds: boolean, violation: string) => void (holds || violations.push(violation));
    const batcher = createBatcher<number, number>({
      settings: { maxBatchSize, maxDelayMs: random.integer(3), maxQueueLength: 30, maxWaitMs: random.integer(40) },
      maxPreparing,
      async run(inputs) {
        demand(inputs.length <= maxBatchSize, `a batch of ${inputs.length}, at most ${maxBatchSize} are allowed`);
        for (const input of inputs) {
          demand(!cancelled.has(input), `${input} was run although it had been cancelled`);
          ran.set(input, (ran.get(input) ?? 0) + 1);
        }
        await delay(random.integer(3));
        if (inputs.some(isBad)) throw new AppError("IMAGE_UNREADABLE", `bad among ${inputs}`);
        return double(inputs);
      },
    });
    const prepare = async (input: number): Promise<number> => {
      demand(!cancelled.has(input), `${input} was prepared although it had been cancelled`);
      demand(!preparing.has(input) && !ran.has(input), `${input} was prepared twice`);
      preparing.add(input);
      demand(
        preparing.size <= maxPreparing,
        `${preparing.size} were prepared at a time, at most ${maxPreparing} may be`,
      );
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
    for (const [input, count] of ran) demand(count <= 2, `${input} was run ${count} times`);
    assert.deepEqual(violations, [], `seed ${seed}`);
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

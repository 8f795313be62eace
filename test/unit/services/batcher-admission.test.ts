/** Who may come into the queue, and who is refused. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { AppError } from "../../../lib/errors.ts";
import { createByteBudget } from "../../../services/prediction/admission.ts";
import { codeOf, gatedBatcher, outputOf, runMs, serveAlone } from "../../helpers/gated-batcher.ts";

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

test("who would wait for too long is refused, with the time that what is ahead takes; who finds nothing ahead is not", async () => {
  const gated = gatedBatcher({ maxBatchSize: 1, maxWaitMs: 2.5 * runMs });
  const { batcher, letGo } = gated;
  await serveAlone(gated, 500);
  const admitted = [1, 2, 3].map((input) => outputOf(batcher, input));
  const error = AppError.from(await outputOf(batcher, 4).catch((thrown: unknown) => thrown));
  assert.equal(error.code, "QUEUE_FULL");
  const retryDelayMs = Number(error.details.retryDelayMs);
  assert.ok(retryDelayMs > 2.5 * runMs && retryDelayMs <= 3 * runMs, `${retryDelayMs} ms`);
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
  const gated = gatedBatcher({ maxBatchSize: 1, maxWaitMs: 2.5 * runMs, maxQueueLength: 12 });
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

test("bytes are held until they are let go, too many are refused, and what is larger than all comes in alone", () => {
  const budget = createByteBudget(100);
  const first = budget.hold(60);
  const second = budget.hold(40);
  assert.throws(() => budget.hold(1), { code: "QUEUE_FULL", retryable: true, message: /at most 100 bytes/ });
  first[Symbol.dispose]();
  assert.throws(() => budget.hold(61), { code: "QUEUE_FULL" });
  second[Symbol.dispose]();
  const large = budget.hold(1_000);
  assert.throws(() => budget.hold(1), { code: "QUEUE_FULL" });
  large[Symbol.dispose]();
  budget.hold(100);
});

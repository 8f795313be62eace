import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { answerInOrder } from "../../../lib/rpc/answer-in-order.ts";
import { withSeed } from "../../helpers/bus.ts";

async function* countTo(count: number, onRead: (n: number) => void = () => undefined) {
  for (let n = 0; n < count; n++) {
    onRead(n);
    yield n;
  }
}

/** Lets everything go on that can. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await setImmediate();
}

test("answers come in the order of the requests, whatever the order in which they are ready", () =>
  withSeed(async (random) => {
    for (let round = 0; round < 50; round++) {
      const [count, limit] = [random.below(40), 1 + random.below(10)];
      const answers: number[] = [];
      const answer = async (n: number) => {
        for (let turns = random.below(5); turns > 0; turns--) await setImmediate();
        return n;
      };
      for await (const n of answerInOrder(countTo(count), { count: limit }, answer)) answers.push(n);
      assert.deepEqual(
        answers,
        Array.from({ length: count }, (_, n) => n),
      );
    }
  }));

test("an answer is given before the next request comes", async () => {
  let send: (n: number) => void = () => undefined;
  async function* requests() {
    for (;;) {
      yield await new Promise<number>((resolve) => {
        send = resolve;
      });
    }
  }
  const answers = answerInOrder(requests(), { count: 10 }, async (n) => n * 2);
  for (const n of [1, 2, 3]) {
    const next = answers.next();
    await settle();
    send(n);
    assert.deepEqual(await next, { done: false, value: 2 * n });
  }
  await answers.return(undefined);
});

test("no more requests are read than may be open, if their answers are slow or nobody takes them", async () => {
  const read: number[] = [];
  let finish: () => void = () => undefined;
  const slow = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const answers = answerInOrder(
    countTo(100, (n) => read.push(n)),
    { count: 4 },
    (n) => slow.then(() => n),
  );
  const first = answers.next();
  await settle();
  assert.equal(read.length, 4);
  finish();
  assert.deepEqual(await first, { done: false, value: 0 });
  await settle();
  assert.ok(read.length <= 5, `${read.length} were read while nobody took answers`);
  await answers.return(undefined);
});

test("no more is read than may be open by its size, and what is larger is answered alone", async () => {
  let [size, largest] = [0, 0];
  const answer = async (n: number) => {
    size += n;
    largest = Math.max(largest, size);
    await settle();
    size -= n;
    return n;
  };
  const ahead = { count: 100, size: 20, sizeOf: (n: number) => n };
  const answers: number[] = [];
  for await (const n of answerInOrder(countTo(40), ahead, answer)) answers.push(n);
  assert.equal(answers.length, 40);
  assert.ok(largest < 20 + 39, `${largest} at a time`);
});

test("an answer that fails ends the stream at its place, and requests that fail end it too", async () => {
  const answers: number[] = [];
  const failing = answerInOrder(countTo(5), { count: 5 }, async (n) => {
    if (n === 2) throw new Error("two is too many");
    return n;
  });
  await assert.rejects(async () => {
    for await (const n of failing) answers.push(n);
  }, /two is too many/);
  assert.deepEqual(answers, [0, 1]);
  async function* broken() {
    yield 1;
    throw new Error("the client went away");
  }
  await assert.rejects(async () => {
    for await (const n of answerInOrder(broken(), { count: 5 }, async (each) => each)) answers.push(n);
  }, /went away/);
});

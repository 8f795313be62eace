import assert from "node:assert/strict";
import { test } from "node:test";
import { createCrowdWatch } from "../../../services/prediction/crowd.ts";

const longMs = 15;

/** A watch whose clock goes on as it is told. */
function startWatch() {
  let nowMs = 0;
  const watch = createCrowdWatch(() => nowMs);
  /** Somebody comes each millisecond, who would wait for `waitMs(millisecond)`; says at which of them there was a crowd. */
  const come = (forMs: number, waitMs: (atMs: number) => number, { answering = true, refusing = false } = {}) => {
    const crowded: number[] = [];
    for (let atMs = 0; atMs < forMs; atMs++, nowMs++) {
      if (answering) watch.noteAnswer();
      watch.noteArrival(waitMs(atMs), longMs);
      if (watch.isCrowded) crowded.push(atMs);
      if (watch.isCrowded && refusing) watch.noteRefusal();
    }
    return crowded;
  };
  return { come };
}

test("where twice as many come as are answered there is a crowd, and it is known within a twentieth of a second", () => {
  const { come } = startWatch();
  assert.deepEqual(
    come(1_000, () => 3),
    [],
  );
  const [first = Number.POSITIVE_INFINITY] = come(1_000, (atMs) => atMs, { refusing: true });
  assert.ok(first <= 50, `after ${first} ms`);
});

test("a wait that stays long without growing is a crowd as well", () => {
  const { come } = startWatch();
  assert.ok(come(1_000, () => 40, { refusing: true }).length > 800);
});

test("a burst is no crowd, however long those wait who come in it: each waits for less than the one before", () => {
  const { come } = startWatch();
  assert.deepEqual(
    come(500, (atMs) => Math.max(0, 200 - atMs / 2)),
    [],
  );
});

test("while nobody is answered what grows is no crowd", () => {
  const { come } = startWatch();
  assert.deepEqual(
    come(500, (atMs) => atMs / 2, { answering: false }),
    [],
  );
  assert.deepEqual(
    come(500, (atMs) => Math.max(0, 250 - atMs / 2)),
    [],
  );
});

test("a queue that is short now and then is none that stays", () => {
  const { come } = startWatch();
  assert.deepEqual(
    come(1_000, (atMs) => (atMs % 10 === 0 ? 5 : 60)),
    [],
  );
});

test("a crowd stays while somebody is refused, short as the wait is then, and has gone a moment after the last", () => {
  const { come } = startWatch();
  come(300, (atMs) => atMs, { refusing: true });
  assert.equal(come(1_000, () => 5, { refusing: true }).length, 1_000);
  const left = come(1_000, () => 5);
  assert.ok(left.length > 50 && left.length < 150, `for ${left.length} ms`);
});

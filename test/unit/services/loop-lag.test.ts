import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay, setImmediate } from "node:timers/promises";
import { createLoopLag } from "../../../services/prediction/loop-lag.ts";

function work(forMs: number): void {
  const endMs = performance.now() + forMs;
  while (performance.now() < endMs);
}

test("what is read may have come since the turn before began", async () => {
  const lagMs = createLoopLag();
  assert.ok(lagMs() < 20, "nothing was done before");
  work(60);
  const within = lagMs();
  assert.ok(within >= 60, `in the same turn: ${within} ms`);
  await setImmediate();
  const after = lagMs();
  assert.ok(after >= 60, `in the next: ${after} ms`);
});

test("a turn of long ago says nothing of what comes now", async () => {
  const lagMs = createLoopLag();
  lagMs();
  work(300);
  await delay(100);
  const lag = lagMs();
  assert.ok(lag < 300, `${lag} ms`);
});

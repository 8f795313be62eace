import assert from "node:assert/strict";
import { test } from "node:test";
import { learningRateAt, progressAt } from "../../../lib/nn/schedules.ts";
import { assertAllClose } from "./layer-harness.ts";

const steps = 100;
const rates = (schedule: Parameters<typeof learningRateAt>[0], at: readonly number[]): number[] =>
  at.map((step) => learningRateAt(schedule, { progress: step / steps, stepShare: 1 / steps, peak: 2 }));

test("a constant schedule is its peak", () => {
  assert.deepEqual(rates({ kind: "constant" }, [0, 50, 99]), [2, 2, 2]);
});

test("a step schedule falls by its factor after each of its shares", () => {
  const schedule = { kind: "step", at: [0.5, 0.75], factor: 0.1 } as const;
  assertAllClose(rates(schedule, [0, 49, 50, 74, 75, 99]), [2, 2, 0.2, 0.2, 0.02, 0.02], 1e-12, "rates");
});

test("a cosine falls from the peak over half of it to the end value", () => {
  const schedule = { kind: "cosine", warmUp: 0, final: 0.1 } as const;
  assertAllClose(rates(schedule, [0, 50, 100]), [2, 1.1, 0.2], 1e-12, "rates");
});

test("a cosine with warm-up rises in even steps to the peak first", () => {
  assertAllClose(
    rates({ kind: "cosine", warmUp: 0.04, final: 0 }, [0, 1, 2, 3, 4]),
    [0.5, 1, 1.5, 2, 2],
    1e-12,
    "rates",
  );
});

test("one cycle is a triangle with its peak after the warm-up", () => {
  const schedule = { kind: "one-cycle", warmUp: 0.25, initial: 0.2, final: 0 } as const;
  assertAllClose(rates(schedule, [0, 25, 62.5, 100]), [0.4, 2, 1, 0], 1e-12, "rates");
});

test("one cycle without warm-up or without descent stays finite", () => {
  assertAllClose(rates({ kind: "one-cycle", warmUp: 0, initial: 0.2, final: 0 }, [0, 99]), [2, 0.02], 1e-12, "rates");
  assertAllClose(rates({ kind: "one-cycle", warmUp: 1, initial: 0, final: 0 }, [0, 50]), [0, 1], 1e-12, "rates");
});

test("at the very end, which a limit of time can reach before a step, every schedule has its end value", () => {
  const atEnd = (schedule: Parameters<typeof learningRateAt>[0]) => rates(schedule, [100])[0] ?? Number.NaN;
  assert.equal(atEnd({ kind: "constant" }), 2);
  assertAllClose([atEnd({ kind: "step", at: [0.5, 1], factor: 0.1 })], [0.02], 1e-12, "step");
  for (const kind of ["cosine", "one-cycle"] as const) {
    const schedule = { kind, initial: 0, final: 0.1 };
    assertAllClose([atEnd({ ...schedule, warmUp: 0 })], [0.2], 1e-12, kind);
    assertAllClose([atEnd({ ...schedule, warmUp: 0.5 })], [0.2], 1e-12, kind);
    assert.equal(atEnd({ ...schedule, warmUp: 1 }), 2, `${kind} that only warms up ends at the peak`);
  }
});

test("progress is the share of the steps, or of the time where that is more, and never above 1", () => {
  const progress = (step: number, elapsedMinutes: number, maxMinutes: number): number =>
    progressAt({ step, steps, elapsedMs: 60_000 * elapsedMinutes, maxMinutes });
  assert.deepEqual([progress(25, 99, 0), progress(25, 1, 10), progress(25, 5, 10)], [0.25, 0.25, 0.5]);
  assert.deepEqual([progress(100, 1, 10), progress(3, 11, 10)], [1, 1]);
});

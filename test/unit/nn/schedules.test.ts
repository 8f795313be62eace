import assert from "node:assert/strict";
import { test } from "node:test";
import { learningRateAt } from "../../../lib/nn/schedules.ts";
import { assertAllClose } from "./layer-harness.ts";

const steps = 100;
const rates = (schedule: Parameters<typeof learningRateAt>[0], at: readonly number[]): number[] =>
  at.map((step) => learningRateAt(schedule, { step, steps, peak: 2 }));

test("a constant schedule is its peak", () => {
  assert.deepEqual(rates({ kind: "constant" }, [0, 50, 99]), [2, 2, 2]);
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

import assert from "node:assert/strict";
import { test } from "node:test";
import { createWeightAveraging, emaDecay } from "../../../lib/nn/weight-averaging.ts";
import { assertAllClose } from "./layer-harness.ts";

/** A trainer of one weight, which a test moves by hand. */
function weightAt(value: number) {
  const values = new Map([["layer/kernel", Float32Array.of(value)]]);
  const set = (next: number): void => void values.get("layer/kernel")?.fill(next);
  return {
    trainer: {
      weights: () => values,
      setWeights: (next: ReadonlyMap<string, Float32Array>) => set(next.get("layer/kernel")?.[0] ?? Number.NaN),
    },
    set,
    get: (): number => values.get("layer/kernel")?.[0] ?? Number.NaN,
  };
}

const only = (weights: ReadonlyMap<string, Float32Array>): number => weights.get("layer/kernel")?.[0] ?? Number.NaN;

test("without averaging the weights are the last step's, and a checkpoint keeps nothing", () => {
  const weight = weightAt(1);
  const averaging = createWeightAveraging({ kind: "none" }, weight.trainer);
  weight.set(5);
  averaging.update({ step: 0, progress: 0.5 });
  assert.equal(only(averaging.weights()), 5);
  assert.equal(averaging.state().size, 0);
});

test("an exponential moving average follows the formula, and leaves the training alone", () => {
  const weight = weightAt(0);
  const averaging = createWeightAveraging({ kind: "ema", decay: 0.3 }, weight.trainer);
  let expected = 0;
  for (const [step, value] of [4, -2, 7, 1].entries()) {
    weight.set(value);
    averaging.update({ step, progress: (step + 1) / 4 });
    const decay = Math.min(0.3, (1 + step) / (10 + step));
    expected = decay * expected + (1 - decay) * value;
    assert.equal(weight.get(), value);
  }
  assertAllClose([only(averaging.weights())], [expected], 1e-6, "average");
});

test("the moving average's decay warms up to the configured one", () => {
  assertAllClose(
    [0, 1, 90, 1e6].map((step) => emaDecay(0.99, step)),
    [0.1, 2 / 11, 0.91, 0.99],
    1e-12,
    "decays",
  );
});

/** Lookahead over a weight, and what is evaluated after a step that has brought the weight to a value. */
function lookaheadOf(weight: ReturnType<typeof weightAt>, { every, steps }: { every: number; steps: number }) {
  const averaging = createWeightAveraging({ kind: "lookahead", every, rate: 0.25 }, weight.trainer);
  return (step: number, value: number): number => {
    weight.set(value);
    averaging.update({ step, progress: (step + 1) / steps });
    return only(averaging.weights());
  };
}

test("lookahead moves the slow weights every few steps, less as the training goes on, and the fast ones back to them", () => {
  const weight = weightAt(0);
  const after = lookaheadOf(weight, { every: 2, steps: 8 });
  after(0, 8);
  assert.equal(after(1, 10), 10, "the slow weights begin with the first move");
  after(2, 14);
  const half = 10 + (1 - 0.75 / 8) * (18 - 10);
  assertAllClose([after(3, 18), weight.get()], [half, half], 1e-6, "at half of the training");
  after(4, half);
  after(5, half);
  after(6, 20);
  const end = half + 0.25 * (24 - half);
  assertAllClose([after(7, 24), weight.get()], [end, end], 1e-6, "at its end");
});

test("lookahead over fewer steps than it moves after gives the trained weights", () => {
  const weight = weightAt(0);
  const after = lookaheadOf(weight, { every: 5, steps: 3 });
  assert.deepEqual([after(0, 1), after(1, 2), after(2, 3)], [1, 2, 3]);
});

test("lookahead takes in the steps after its last move, and the training goes on as if nobody had asked", () => {
  const weight = weightAt(0);
  const after = lookaheadOf(weight, { every: 2, steps: 5 });
  after(0, 4);
  assert.equal(after(1, 8), 8);
  assertAllClose([after(2, 12), weight.get()], [9, 12], 1e-6, "between two moves");
  const slow = after(3, 12);
  assertAllClose([slow], [8 + (1 - 0.75 * 0.8 ** 3) * 4], 1e-6, "a move");
  assertAllClose([after(4, slow + 2), weight.get()], [slow + 0.5, slow + 2], 1e-6, "at the end");
});

test("averaging that goes on from a checkpoint's state gives what it would have given without the break", () => {
  for (const config of [
    { kind: "ema", decay: 0.9 },
    { kind: "lookahead", every: 2, rate: 0.5 },
    { kind: "lookahead", every: 4, rate: 0.5 },
  ] as const) {
    const [whole, broken] = [weightAt(1), weightAt(1)];
    const first = createWeightAveraging(config, whole.trainer);
    let second = createWeightAveraging(config, broken.trainer);
    for (const [step, change] of [3, -1, 0.5, 2, -4, 1].entries()) {
      whole.set(whole.get() + change);
      broken.set(broken.get() + change);
      first.update({ step, progress: (step + 1) / 6 });
      second.update({ step, progress: (step + 1) / 6 });
      if (step === 2) second = createWeightAveraging(config, broken.trainer, second.state());
    }
    assert.deepEqual(second.weights(), first.weights());
  }
});

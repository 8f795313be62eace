import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { settlementFor } from "../../../lib/bus/settlement.ts";
import { AppError } from "../../../lib/errors.ts";

const policy = { attempt: 1, maxAttempts: 4, retryDelaysMs: [100, 200] };

suite("a message whose handling failed", () => {
  test("is tried again after the pause of its try, the last of which repeats", () => {
    const error = new AppError("ARTIFACT_TIMEOUT", "no answer");
    const pauses = [1, 2, 3].map((attempt) => settlementFor(error, { ...policy, attempt }));
    assert.deepEqual(
      pauses,
      [100, 200, 200].map((pauseMs) => ({ kind: "retry", pauseMs, error })),
    );
  });

  test("becomes a dead letter when its tries are used up, or when trying again cannot help", () => {
    const passing = new AppError("ARTIFACT_TIMEOUT", "no answer");
    const lasting = new AppError("DATASET_INVALID", "no images");
    assert.deepEqual(settlementFor(passing, { ...policy, attempt: 4 }), { kind: "dead letter", error: passing });
    assert.deepEqual(settlementFor(lasting, policy), { kind: "dead letter", error: lasting });
  });

  test("is given back when the service stops, and let go when the run is cancelled, after the last try too", () => {
    const last = { ...policy, attempt: 9 };
    assert.deepEqual(settlementFor(new AppError("SHUTTING_DOWN", ""), last), { kind: "give back" });
    assert.deepEqual(settlementFor(new AppError("CANCELLED", ""), last), { kind: "acknowledge" });
  });

  test("is tried again at once where no pauses are given", () => {
    const error = new AppError("INTERNAL", "");
    assert.deepEqual(settlementFor(error, { ...policy, retryDelaysMs: [] }), { kind: "retry", pauseMs: 0, error });
  });
});

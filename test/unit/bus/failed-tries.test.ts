import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { createFailedTries } from "../../../lib/bus/failed-tries.ts";
import { AppError } from "../../../lib/errors.ts";

const retry = (message: string) => ({
  kind: "retry" as const,
  pauseMs: 0,
  error: new AppError("ARTIFACT_TIMEOUT", message),
});

suite("the reasons of failed tries", () => {
  test("are told of the message that they are about, the newest only, and never of a first try", () => {
    const tries = createFailedTries();
    tries.note(7, retry("first"));
    tries.note(7, retry("second"));
    tries.note(8, retry("another"));
    assert.equal(tries.reasonBefore(7, 3), "ARTIFACT_TIMEOUT: second");
    assert.equal(tries.reasonBefore(8, 2), "ARTIFACT_TIMEOUT: another");
    assert.equal(tries.reasonBefore(7, 1), undefined);
  });

  test("are said to be unknown where another process had the message, or it was settled since", () => {
    const tries = createFailedTries();
    assert.match(tries.reasonBefore(9, 2) ?? "", /^not known to this process/);
    tries.note(9, retry("first"));
    tries.note(9, { kind: "acknowledge" });
    assert.match(tries.reasonBefore(9, 3) ?? "", /^not known to this process/);
  });

  test("are a thousand at most, the newest", () => {
    const tries = createFailedTries();
    for (let sequence = 0; sequence <= 1_000; sequence++) tries.note(sequence, retry(String(sequence)));
    assert.match(tries.reasonBefore(0, 2) ?? "", /^not known/);
    assert.equal(tries.reasonBefore(1, 2), "ARTIFACT_TIMEOUT: 1");
    assert.equal(tries.reasonBefore(1_000, 2), "ARTIFACT_TIMEOUT: 1000");
  });
});

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import { joinSignals, orAborted } from "../../lib/abort.ts";

const never = new Promise<never>(() => {});
const listeners = (signal: AbortSignal) => getEventListeners(signal, "abort").length;

test("work gives its result or its error, and leaves no listener on the signal", async () => {
  const { signal } = new AbortController();
  assert.equal(await orAborted(Promise.resolve(1), signal), 1);
  await assert.rejects(orAborted(Promise.reject(new Error("broken")), signal), /broken/);
  assert.equal(listeners(signal), 0);
});

test("an abort is not held up by work that does not listen, and its reason is the rejection", async () => {
  const controller = new AbortController();
  const waiting = orAborted(never, controller.signal);
  controller.abort(new Error("enough"));
  await assert.rejects(waiting, /enough/);
  await assert.rejects(orAborted(never, controller.signal), /enough/);
  await assert.rejects(orAborted(Promise.reject(new Error("too late")), controller.signal), /enough/);
});

test("a joined signal aborts with the first of its sources, and disposed of it leaves nothing on them", () => {
  const [first, second] = [new AbortController(), new AbortController()];
  {
    using joined = joinSignals(first.signal, second.signal);
    assert.equal(joined.signal.aborted, false);
    assert.deepEqual([listeners(first.signal), listeners(second.signal)], [1, 1]);
  }
  assert.deepEqual([listeners(first.signal), listeners(second.signal)], [0, 0]);

  const joined = joinSignals(first.signal, second.signal);
  second.abort("second");
  first.abort("first");
  assert.equal(joined.signal.reason, "second");
  assert.equal(joinSignals(first.signal, second.signal).signal.reason, "first");
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { memoize } from "../../lib/memoize.ts";

test("it works once for each object, and gives the same result again", () => {
  let made = 0;
  const boxOf = memoize(({ size }: { readonly size: number }) => ({ size, number: ++made }));
  const [small, large] = [{ size: 1 }, { size: 2 }];
  const first = boxOf(small);
  assert.deepEqual(boxOf(large), { size: 2, number: 2 });
  assert.equal(boxOf(small), first);
  assert.equal(made, 2);
});

test("what was thrown is not kept", () => {
  const state = { fails: true };
  const read = memoize(() => {
    if (state.fails) throw new Error("not yet");
    return "done";
  });
  const key = {};
  assert.throws(() => read(key), /not yet/);
  state.fails = false;
  assert.equal(read(key), "done");
});

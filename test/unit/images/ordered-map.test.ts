import assert from "node:assert/strict";
import { it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { mapInOrder } from "../../../lib/images/ordered-map.ts";

it("yields in the items' order, whichever is done first", async () => {
  const turns = [5, 1, 3, 0, 2];
  const wait = async (count: number): Promise<number> => {
    for (let turn = 0; turn < count; turn++) await nextTurn();
    return count;
  };
  const seen: number[] = [];
  for await (const count of mapInOrder(turns, 3, wait)) seen.push(count);
  assert.deepEqual(seen, turns);
});

it("has no more results in hand than the limit", async () => {
  let [started, taken, most] = [0, 0, 0];
  const items = Array.from({ length: 30 }, (_, index) => index);
  const work = async (): Promise<void> => {
    started++;
    most = Math.max(most, started - taken);
  };
  for await (const _ of mapInOrder(items, 4, work)) {
    await nextTurn();
    taken++;
  }
  assert.deepEqual([started, taken], [30, 30]);
  assert.ok(most <= 5, `${most} were under way`);
});

it("throws an item's error at that item's place", async () => {
  const seen: number[] = [];
  const work = async (item: number): Promise<number> => {
    if (item >= 2) throw new Error(`item ${item}`);
    return item;
  };
  await assert.rejects(async () => {
    for await (const item of mapInOrder([0, 1, 2, 3], 4, work)) seen.push(item);
  }, /item 2/);
  assert.deepEqual(seen, [0, 1]);
});

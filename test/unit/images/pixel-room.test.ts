import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { createPixelRoom } from "../../../lib/images/pixel-room.ts";
import { withSeed } from "../../helpers/bus.ts";

test("no more pixels are under way than there is room for, and everybody's turn comes, in order", () =>
  withSeed(async (random) => {
    const total = 100;
    const room = createPixelRoom(total);
    let used = 0;
    const begun: number[] = [];
    const work = async (index: number) => {
      const pixels = 1 + random.below(total);
      return room.use(pixels, async () => {
        begun.push(index);
        used += pixels;
        assert.ok(used <= total, `${used} pixels at a time`);
        for (let turns = random.below(5); turns > 0; turns--) await setImmediate();
        used -= pixels;
        return index;
      });
    };
    const all = Array.from({ length: 200 }, (_, index) => index);
    assert.deepEqual(await Promise.all(all.map(work)), all);
    assert.deepEqual([begun, used], [all, 0]);
  }));

test("the room of work that fails is free again", async () => {
  const room = createPixelRoom(10);
  const failing = () => Promise.reject(new Error("damaged"));
  await assert.rejects(room.use(10, failing), /damaged/);
  assert.equal(await room.use(10, async () => "next"), "next");
});

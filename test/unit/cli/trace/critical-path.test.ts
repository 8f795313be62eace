import assert from "node:assert/strict";
import { test } from "node:test";
import { criticalPath } from "../../../../cli/trace/critical-path.ts";
import { treeFromSpans } from "../../../../cli/trace/tree.ts";
import { pathShares } from "../../../../cli/trace/view.ts";
import { beganMs, run, type SpanOutline, span } from "./traces.ts";

/** The path as "name start-end", in milliseconds from the beginning; "-" for time in which no span was at work. */
function pathOf(...spans: readonly SpanOutline[]): string[] {
  const { segments } = criticalPath(treeFromSpans(spans.map(span)));
  return segments.map(
    ({ span: who, startMs, endMs }) => `${who?.spanId ?? "-"} ${startMs - beganMs}-${endMs - beganMs}`,
  );
}

test("within a span the child that ended last was waited for, and before it the one that ended before it began", () => {
  const path = pathOf(
    { id: "a", at: [0, 100] },
    { id: "first", parent: "a", at: [10, 30] },
    { id: "beside", parent: "a", at: [20, 45] },
    { id: "second", parent: "a", at: [40, 90] },
  );
  assert.deepEqual(path, ["a 0-10", "first 10-30", "a 30-40", "second 40-90", "a 90-100"]);
});

test("it goes from the consumer of a message back to its producer, and what lay between belongs to nobody", () => {
  assert.deepEqual(pathOf(...run), [
    "RequestRun 0-5",
    "send a 5-8",
    "- 8-20",
    "process a 20-25",
    "prepare 25-50",
    "process a 50-52",
    "send b 52-55",
    "- 55-70",
    "process b 70-200",
  ]);
});

test("a span that was over in time is on it even where what it caused went on for long", () => {
  const path = pathOf(
    { id: "a", at: [0, 100] },
    { id: "send", parent: "a", at: [10, 40] },
    { id: "late", parent: "send", at: [45, 80] },
    { id: "work", parent: "a", at: [50, 100] },
  );
  assert.deepEqual(path, ["a 0-10", "send 10-40", "a 40-50", "work 50-100"]);
});

test("clocks that disagree make no segment overlap another", () => {
  const path = pathOf(
    { id: "a", at: [10, 40] },
    { id: "early", parent: "a", at: [0, 20] },
    { id: "deep", parent: "early", at: [-5, 18] },
  );
  assert.deepEqual(path, ["deep -5-18", "early 18-20", "a 20-40"]);
});

test("a span that seems to end just after the next has begun, by clocks that tick in milliseconds, was waited for", () => {
  const path = pathOf(
    { id: "a", at: [0, 100] },
    { id: "load", parent: "a", at: [10, 60.9] },
    { id: "warm up", parent: "a", at: [60, 100] },
  );
  assert.deepEqual(path, ["a 0-10", "load 10-60", "warm up 60-100"]);
});

test("several beginnings follow each other, with gaps between them", () => {
  const path = pathOf({ id: "a", at: [0, 10] }, { id: "b", parent: "lost", at: [15, 30] }, { id: "c", at: [20, 25] });
  assert.deepEqual(path, ["a 0-10", "- 10-15", "b 15-30"]);
});

test("spans without duration take no time and do not keep the walk from ending", () => {
  const zeros = Array.from({ length: 5 }, (_, index): SpanOutline => ({ id: `z${index}`, parent: "a", at: [5, 5] }));
  assert.deepEqual(pathOf({ id: "a", at: [0, 10] }, ...zeros), ["a 0-5", "a 5-10"]);
  assert.deepEqual(pathOf({ id: "only", at: [3, 3] }), []);
  assert.deepEqual(pathOf(), []);
});

test("the spans on it are named, those that only waited for their children too", () => {
  const tree = treeFromSpans(
    [
      { id: "a", at: [0, 10] as const },
      { id: "b", parent: "a", at: [0, 10] as const },
      { id: "beside", parent: "a", at: [2, 3] as const },
    ].map(span),
  );
  assert.deepEqual([...criticalPath(tree).spanIds].sort(), ["a", "b"]);
});

test("its parts by name come to the whole, the largest first", () => {
  const shares = pathShares(criticalPath(treeFromSpans(run.map(span))));
  assert.deepEqual(
    shares.slice(0, 3).map(({ label, ms }) => [label, ms]),
    [
      ["process b", 130],
      ["", 27],
      ["prepare", 25],
    ],
  );
  assert.ok(Math.abs(shares.reduce((sum, { share }) => sum + share, 0) - 1) < 1e-9);
});

test("segments follow each other without gap or overlap in any trace", () => {
  const seed = 20260102;
  let state = seed;
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  for (let round = 0; round < 200; round++) {
    const spans = Array.from({ length: 1 + random(30) }, (_, index): SpanOutline => {
      const start = random(100);
      const parent = random(5) === 0 ? "lost" : `s${random(Math.max(1, index))}`;
      return { id: `s${index}`, ...(index > 0 && { parent }), at: [start, start + random(60)] };
    });
    const tree = treeFromSpans(spans.map(span));
    const { segments } = criticalPath(tree);
    const message = `seed ${seed}, round ${round}`;
    for (const [index, { startMs, endMs }] of segments.entries()) {
      assert.ok(endMs > startMs, message);
      if (index > 0) assert.equal(startMs, segments[index - 1]?.endMs, message);
    }
    if (tree.endMs > tree.startMs) assert.equal(segments.at(-1)?.endMs, tree.endMs, message);
  }
});

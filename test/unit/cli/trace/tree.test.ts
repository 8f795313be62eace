import assert from "node:assert/strict";
import { test } from "node:test";
import { preorder, treeFromSpans } from "../../../../cli/trace/tree.ts";
import { beganMs, run, type SpanOutline, span } from "./traces.ts";

function treeOf(...spans: readonly SpanOutline[]) {
  return treeFromSpans(spans.map(span));
}

const ids = (nodes: ReturnType<typeof preorder>) => nodes.map(({ span: { spanId } }) => spanId);

test("children come below their parents in the order in which they began, whatever the order of the files", () => {
  const inOrder = run.map(({ id }) => id);
  assert.deepEqual(ids(preorder(treeOf(...run).roots)), inOrder);
  assert.deepEqual(ids(preorder(treeOf(...run.toReversed()).roots)), inOrder);
});

test("the times of a trace reach from its first start to its last end", () => {
  const { startMs, endMs, spanCount } = treeOf(...run);
  assert.deepEqual([startMs - beganMs, endMs - beganMs, spanCount], [0, 200, 7]);
});

test("a child may begin before its parent, where clocks disagree", () => {
  const { roots, startMs } = treeOf({ id: "a", at: [10, 20] }, { id: "b", parent: "a", at: [3, 15] });
  assert.deepEqual(ids(preorder(roots)), ["a", "b"]);
  assert.equal(startMs - beganMs, 3);
});

test("spans whose parent is missing keep what is below them, and several roots are all there", () => {
  const tree = treeOf(
    { id: "a", at: [0, 1] },
    { id: "b", at: [2, 3] },
    { id: "c", parent: "lost", at: [1, 9] },
    { id: "d", parent: "c", at: [2, 3] },
  );
  assert.deepEqual(
    [ids(preorder(tree.roots)), ids(preorder(tree.orphans))],
    [
      ["a", "b"],
      ["c", "d"],
    ],
  );
});

test("a span that is in two files counts once", () => {
  const tree = treeOf({ id: "a", at: [0, 1] }, { id: "a", at: [0, 1] });
  assert.deepEqual([tree.roots.length, tree.spanCount], [1, 1]);
});

test("parents that form a circle are cut open, and no span is lost", () => {
  const tree = treeOf(
    { id: "a", parent: "b", at: [0, 1] },
    { id: "b", parent: "a", at: [1, 2] },
    { id: "c", parent: "c", at: [3, 4] },
  );
  assert.deepEqual(ids(preorder(tree.orphans)), ["a", "b", "c"]);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { stripVTControlCharacters } from "node:util";
import { duration } from "../../../../cli/trace/labels.ts";
import { terminalLines } from "../../../../cli/trace/terminal.ts";
import { columnsOf, fitted, printable, wrapped } from "../../../../cli/trace/text-width.ts";
import { run, type SpanOutline, viewFrom } from "./traces.ts";

interface Drawing {
  readonly width?: number;
  readonly colors?: boolean;
  readonly all?: boolean;
}

function draw(spans: readonly SpanOutline[], { width = 100, colors = false, all = false }: Drawing = {}): string[] {
  return terminalLines(viewFrom(...spans), { width, colors, all });
}

/** The lines of the tree, without what is above and below it. */
function treeLines(spans: readonly SpanOutline[], drawing: Drawing = {}): string[] {
  const lines = draw(spans, drawing);
  const from = lines.indexOf("");
  return lines.slice(from + 2, lines.indexOf("", from + 1));
}

const root: SpanOutline = { id: "root", at: [0, 1000] };
const children = (count: number, about: Partial<SpanOutline> = {}) =>
  Array.from({ length: count }, (_, index): SpanOutline => {
    return { id: `c${index}`, name: "artifact get", parent: "root", at: [index, index + 1], ...about };
  });

test("a run reads from top to bottom: names below each other, times, and bars where the work was", () => {
  assert.deepEqual(treeLines(run, { width: 60 }), [
    "▎ RequestRun pipeline           10 ms █░",
    "▎   send a                     3.0 ms ▌",
    "▎     process a ingestion       40 ms   █░░▌░",
    "▎       prepare                 25 ms   ████",
    "        report                 5.0 ms    ░",
    "▎       send b                 3.0 ms      ▌▌",
    "▎         process b training   130 ms        ███████████████",
  ]);
});

test("the axis ends with the length of the trace, with marks between where there is room", () => {
  const axisOf = (width: number, endMs: number) => {
    const lines = draw([{ id: "root", at: [0, endMs] }], { width });
    return lines[lines.indexOf("") + 1]?.trim();
  };
  assert.equal(axisOf(100, 37_500)?.replaceAll(/ +/g, " "), "0 ms 9.4 s 18.8 s 28.1 s 37.5 s");
  assert.match(axisOf(100, 325_000) ?? "", /^0 ms .*5 min 25 s$/);
  assert.equal(axisOf(40, 37_500), "37.5 s");
});

test("above and below stand the run, its services, and where the time went", () => {
  const text = draw(run).join("\n");
  for (const part of [
    /^Run run-1$/m,
    /^200 ms, 7 spans, began 2026-01-02 03:04:05 UTC$/m,
    /■ pipeline.*■ ingestion.*■ training/,
    /130 ms +65.0 % +process b \(training\)/,
    /27 ms +13.5 % +waiting/,
  ])
    assert.match(text, part);
});

test("many short equal siblings share a line with their number and bytes, and --all shows each", () => {
  const reads = children(200, { attributes: { "millrace.artifact.size_bytes": 1500 } });
  const lines = treeLines([root, ...reads]);
  assert.equal(lines.length, 2);
  assert.match(lines[1] ?? "", /artifact get ×200, 300 kB +200 ms/);
  assert.equal(treeLines([root, ...reads], { all: true }).length, 202);
});

test("a few long siblings stay apart, more than twenty do not", () => {
  const long = (count: number) => children(count, { at: [0, 500] });
  assert.equal(treeLines([root, ...long(20)]).length, 21);
  assert.equal(treeLines([root, ...long(21)]).length, 2);
});

test("a sibling that failed, or below which another service works, is not hidden among its equals", () => {
  const failed: SpanOutline = { id: "bad", name: "artifact get", parent: "root", at: [50, 51], error: "it is gone" };
  const consumer: SpanOutline = { id: "other", parent: "c3", service: "ingestion", at: [60, 70] };
  const lines = treeLines([root, ...children(30), failed, consumer]);
  assert.deepEqual(
    lines.map((line) => line.slice(2).trim().split(/ {2,}/)[0]),
    ["root training", "artifact get ×29", "artifact get", "other ingestion", "artifact get", "✗ it is gone"],
  );
});

test("an error stands below its span with its code, and a further delivery says which try it is", () => {
  const process = { kind: "consumer", parent: "root", name: "process x" } as const;
  const lines = treeLines([
    root,
    {
      ...process,
      id: "t1",
      at: [1, 100],
      error: "the store did not answer",
      attributes: { "error.type": "ARTIFACT_TIMEOUT", "millrace.delivery.attempt": 1 },
    },
    { ...process, id: "t2", at: [600, 1000], attributes: { "millrace.delivery.attempt": 2 } },
  ]).join("\n");
  assert.match(lines, /^✗ {3}process x/m);
  assert.match(lines, /✗ ARTIFACT_TIMEOUT: the store did not answer/);
  assert.match(lines, /process x ↻ try 2/);
});

test("a link to another trace is shown, the one to the parent is not", () => {
  const link = { traceId: "b".repeat(32), spanId: "f".repeat(16), attributes: { "millrace.run.id": "run-7" } };
  const lines = treeLines([
    root,
    { id: "predict", parent: "root", at: [1, 2], links: [link, { ...link, spanId: "root" }] },
  ]);
  assert.deepEqual(
    lines.filter((line) => line.includes("↗")).map((line) => line.trim()),
    [`↗ run run-7, trace ${link.traceId}`],
  );
});

test("spans without their parent are below a line that says so", () => {
  const lines = treeLines([root, { id: "left", parent: "lost", at: [5, 10] }]);
  assert.match(lines[1] ?? "", /^ {2}\(parent not in these files\)$/);
  assert.match(lines[2] ?? "", /^. {3}left/);
});

test("epochs say how good they were, by names that people know", () => {
  const attributes = {
    "millrace.training.epoch": 3,
    "millrace.training.loss": 0.5,
    "millrace.training.accuracy": 0.912,
  };
  const sent = { "cloudevents.event_type": "millrace.v1.ModelAliasMoved" };
  const lines = treeLines([
    { ...root, name: "millrace.v1.PipelineService/RequestRun" },
    { id: "epoch", parent: "root", at: [0, 900], attributes },
    { id: "s", name: "send millrace.registry.v1.{model}", parent: "root", at: [900, 901], attributes: sent },
  ]).join("\n");
  for (const part of [
    /PipelineService\/RequestRun training/,
    /epoch 3, loss 0.500, accuracy 91.2 %/,
    /send alias.moved/,
  ])
    assert.match(lines, part);
});

test("no line is wider than the terminal, however narrow it is, whatever names hold", () => {
  const names = ["数据集准备".repeat(8), "👩‍🔬🧪".repeat(12), "e\u0301".repeat(60), "x".repeat(300)];
  const spans = names.map(
    (name, index): SpanOutline => ({ id: `n${index}`, name, parent: "root", at: [index, 900], error: name }),
  );
  const deep = Array.from(
    { length: 60 },
    (_, index): SpanOutline => ({ id: `d${index}`, parent: index === 0 ? "root" : `d${index - 1}`, at: [0, 5] }),
  );
  for (const width of [32, 40, 41, 80, 200]) {
    for (const line of draw([root, ...spans, ...deep, ...run], { width }))
      assert.ok(columnsOf(line) <= width, `${columnsOf(line)} of ${width}: ${line}`);
  }
});

test("a trace that took no time at all is drawn", () => {
  const lines = draw([
    { id: "root", at: [0, 0] },
    { id: "child", parent: "root", at: [0, 0] },
  ]);
  assert.ok(lines.some((line) => /root training +0 ms +▏/.test(line)));
  assert.doesNotMatch(lines.join("\n"), /NaN|Infinity/);
});

test("names cannot command the terminal", () => {
  const name = "evil\x1b[2J\x07\u202e\nnext";
  const spans: SpanOutline[] = [
    { ...root, name, service: name, error: name, attributes: { "millrace.dataset.name": name } },
  ];
  // biome-ignore lint/suspicious/noControlCharactersInRegex: none of these may get through
  for (const line of draw(spans)) assert.doesNotMatch(line, /[\x00-\x1f\x7f-\x9f\u202e]/);
});

test("colours change nothing but colours", () => {
  const colored = draw(run, { colors: true });
  assert.ok(colored.join("").includes("\x1b[36m"));
  assert.deepEqual(
    colored.map((line) => stripVTControlCharacters(line)),
    draw(run),
  );
});

test("a hundred thousand spans are drawn, be they side by side or each below the one before", () => {
  const many = Array.from({ length: 100_000 }, (_, index) => index);
  const wide = many.map(
    (index): SpanOutline => ({ id: `w${index}`, name: `n${index % 50_000}`, parent: "root", at: [index, index + 1] }),
  );
  assert.ok(draw([{ ...root, at: [0, 100_001] }, ...wide], { all: true }).length > 100_000);
  const deep = many.map(
    (index): SpanOutline => ({
      id: `d${index}`,
      ...(index > 0 && { parent: `d${index - 1}` }),
      at: [index, 200_000 - index],
    }),
  );
  assert.ok(draw(deep).length > 100_000);
});

test("durations have the unit that suits them", () => {
  const times = [0, 0.0004, 0.08, 0.31, 9.94, 42.4, 999.4, 999.6, 4_200, 99_940, 99_960, 125_000, 3_599_900, 3_720_000];
  assert.deepEqual(times.map(duration), [
    "0 ms",
    "1 µs",
    "80 µs",
    "0.3 ms",
    "9.9 ms",
    "42 ms",
    "999 ms",
    "1.0 s",
    "4.2 s",
    "99.9 s",
    "1 min 40 s",
    "2 min 05 s",
    "1 h 00 min",
    "1 h 02 min",
  ]);
});

test("texts fit: wide characters count double, and what is cut says so", () => {
  assert.deepEqual(["abc", "数据", "👩‍🔬", "é", ""].map(columnsOf), [3, 4, 2, 1, 0]);
  assert.deepEqual([fitted("abc", 5), fitted("abcdef", 4), fitted("数据集", 4)], ["abc  ", "abc…", "数… "]);
  assert.deepEqual(wrapped("one two threefour", 7), ["one two", "threefo", "ur"]);
  assert.equal(printable("a\tb\x1bc"), "a b c");
});

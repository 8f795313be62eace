import assert from "node:assert/strict";
import { test } from "node:test";
import type { WriteStream } from "node:tty";
import { create } from "@bufbuild/protobuf";
import { bar, count, createStyle, percent, seconds, table } from "../../../cli/format.ts";
import { createScreen } from "../../../cli/screen.ts";
import { applyToView, emptyView, plainLine, renderView } from "../../../cli/start/run-view.ts";
import { RunEventSchema, RunSchema } from "../../../gen/millrace/v1/pipeline_pb.ts";
import { TrainingEnd } from "../../../gen/millrace/v1/training_pb.ts";

function fakeTerminal(isTTY: boolean, columns = 40) {
  let text = "";
  const out = { isTTY, columns, write: (part: string) => (text += part) } as unknown as WriteStream;
  return { out, text: () => text };
}

test("numbers read as people write them", () => {
  assert.deepEqual([count(55000), count(1234567n)], ["55,000", "1,234,567"]);
  assert.deepEqual([percent(0.8712), percent(1)], ["87.1 %", "100.0 %"]);
  assert.deepEqual([seconds(0.42), seconds(42.4), seconds(185)], ["0.4 s", "42 s", "3 min 05 s"]);
  assert.deepEqual([bar(0.5, 4), bar(-1, 2), bar(7, 2)], ["██░░", "░░", "██"]);
});

test("a table's columns line up", () => {
  assert.deepEqual(
    table(
      ["class", "n"],
      [
        ["cat", "1,000"],
        ["airplane", "7"],
      ],
    ),
    ["class          n", "cat        1,000", "airplane       7"],
  );
});

test("colours are left out where nobody sees them", () => {
  assert.equal(createStyle(false).good("fine"), "fine");
  assert.equal(createStyle(true).good("fine"), "\x1b[32mfine\x1b[39m");
});

test("live lines are drawn over, and a line that stays goes above them", () => {
  const terminal = fakeTerminal(true);
  const screen = createScreen(terminal.out);
  screen.draw(["one", "two"]);
  screen.line("above");
  assert.equal(terminal.text(), "one\ntwo\n\x1b[2A\x1b[0Jabove\none\ntwo\n");
  screen.keep();
  screen.line("below");
  assert.ok(terminal.text().endsWith("two\nbelow\n"));
});

test("a live line never wraps, and its colours do not count as width", () => {
  const terminal = fakeTerminal(true, 6);
  createScreen(terminal.out).draw(["\x1b[32mabcdefgh\x1b[39m"]);
  assert.equal(terminal.text(), "\x1b[32mabcde\x1b[39m\n");
});

test("where nobody watches, nothing is drawn over", () => {
  const terminal = fakeTerminal(false);
  const screen = createScreen(terminal.out);
  screen.draw(["live"]);
  screen.line("stays");
  assert.equal(terminal.text(), "stays\n");
});

test("the view follows a run's events", () => {
  const run = create(RunSchema);
  const at = (second: number) => ({ seconds: BigInt(second), nanos: 0 });
  const metrics = {
    epoch: 1,
    epochs: 4,
    loss: 0.5,
    accuracy: 0.75,
    learningRate: 0.08125,
    imagesPerSecond: 1800,
    remainingSeconds: 6,
    validationAccuracy: 0.7,
  };
  const events = [
    create(RunEventSchema, { time: at(10), event: { case: "trainingStarted", value: { network: "small" } } }),
    create(RunEventSchema, {
      time: at(11),
      event: { case: "trainingProgressed", value: { progress: { epoch: metrics, step: 31, steps: 62 } } },
    }),
    create(RunEventSchema, { time: at(12), event: { case: "trainingEpochCompleted", value: { metrics } } }),
    create(RunEventSchema, {
      time: at(20),
      event: { case: "modelPromoted", value: { report: { imageCount: 1000, accuracy: 0.9 } } },
    }),
  ];
  const within = events.slice(0, 2).reduce((current, event) => applyToView(current, event, run), emptyView);
  assert.equal(within.stages.training.share, 0.125);
  assert.equal(within.stages.training.text, "epoch 1 of 4, step 31 of 62, 6.0 s left");
  const view = events.reduce((current, event) => applyToView(current, event, run), emptyView);
  assert.equal(view.stages.training.share, 0.25);
  const measures = "loss 0.500, accuracy 75.0 %, validation 70.0 %, rate 0.0813, 1,800 images/s";
  assert.equal(plainLine("training", view.stages.training), `  training    epoch 1 of 4, 6.0 s left: ${measures}`);
  assert.deepEqual([view.stages.evaluation.state, view.stages.prediction.state], ["done", "working"]);
  const lines = renderView(view, createStyle(false), 25_000);
  assert.match(lines[1] ?? "", /^ {2}training {4}████░{12} {6}15 s {2}epoch 1/);
  assert.equal(lines[2], `    ${measures}`);
  assert.ok(lines[2].length < 80, "a terminal of 80 columns shows it whole");
  assert.match(lines[0] ?? "", /ingestion {3}·{16}/);
});

test("a training that ended before its last epoch says so, and which epoch was kept", () => {
  const run = create(RunSchema, {
    lastEpoch: { epoch: 8, epochs: 40, loss: 0.25, imagesPerSecond: 1000 },
    training: { end: TrainingEnd.EARLY_STOPPING, epochs: 8, keptEpoch: 5 },
  });
  const event = create(RunEventSchema, { event: { case: "modelTrained", value: {} } });
  const { text } = applyToView(emptyView, event, run).stages.training;
  assert.equal(text, "8 epochs, stopped early, epoch 5 kept, loss 0.250, 1,000 images/s");
});

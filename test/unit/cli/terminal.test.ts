import assert from "node:assert/strict";
import { join, resolve } from "node:path";
import { test } from "node:test";
import type { WriteStream } from "node:tty";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { calledFrom } from "../../../cli/called-from.ts";
import { bar, count, createStyle, percent, seconds, shortPath, table } from "../../../cli/format.ts";
import { createScreen } from "../../../cli/screen.ts";
import { applyToView, emptyView, plainLine, renderView, withDeployment } from "../../../cli/start/run-view.ts";
import { type RunEvent, RunEventSchema, RunSchema } from "../../../gen/millrace/v1/pipeline_pb.ts";
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

test("a path reads as people write it", () => {
  assert.equal(shortPath(resolve(calledFrom, "samples", "cat.png")), join("samples", "cat.png"));
  const elsewhere = resolve(calledFrom, "..", "elsewhere", "cat.png");
  assert.equal(shortPath(elsewhere), elsewhere);
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

const at = (second: number) => ({ seconds: BigInt(second), nanos: 0 });
type EventInit = NonNullable<MessageInitShape<typeof RunEventSchema>["event"]>;
const happened = (second: number, event: EventInit) => create(RunEventSchema, { time: at(second), event });
const viewAfter = (events: readonly RunEvent[], run = create(RunSchema)) =>
  events.reduce((view, event) => applyToView(view, event, run), emptyView);

const metrics = {
  epoch: 1,
  epochs: 4,
  loss: 0.5,
  accuracy: 0.75,
  learningRate: 0.08125,
  imagesPerSecond: 1800,
  remainingSeconds: 6,
};
const started = happened(10, { case: "trainingStarted", value: { network: "small", engine: "onnxruntime 1" } });
const progressed = happened(11, {
  case: "trainingProgressed",
  value: { progress: { epoch: metrics, step: 31, steps: 62 } },
});

test("the view follows a run's events", () => {
  const ended = happened(12, {
    case: "trainingEpochCompleted",
    value: { metrics: { ...metrics, validationAccuracy: 0.7 } },
  });
  const promoted = happened(20, { case: "modelPromoted", value: { report: { imageCount: 1000, accuracy: 0.9 } } });
  const within = viewAfter([started, progressed]).stages.training;
  assert.deepEqual([within.share, within.text], [0.125, "epoch 1 of 4, 6.0 s left"]);
  assert.equal(within.detail, "step 31/62, loss 0.500, accuracy 75.0 %, lr 0.0813, 1,800 img/s");
  const view = viewAfter([started, progressed, ended, promoted]);
  assert.equal(view.stages.training.share, 0.25);
  const measures = "loss 0.500, accuracy 75.0 %, validation 70.0 %, lr 0.081, 1,800 img/s";
  assert.equal(plainLine("training", view.stages.training), `  training    epoch 1 of 4, 6.0 s left: ${measures}`);
  assert.deepEqual(
    [view.stages.evaluation.text, view.stages.prediction.state],
    ["accuracy 90.0 %: promoted", "working"],
  );
  const lines = renderView(view, createStyle(false), 25_000);
  assert.match(lines[0] ?? "", /ingestion {3}·{12}/);
  assert.match(lines[1] ?? "", /^ {2}training {4}███░{9} {9}15 s {2}epoch 1/);
  assert.equal(lines[2], `    ${measures}`);
});

test("a terminal of 80 columns shows every line whole, also of a large training", () => {
  const epoch = {
    epoch: 1000,
    epochs: 1000,
    loss: 12.3456,
    accuracy: 1,
    learningRate: 0.00012345,
    imagesPerSecond: 12_345,
    remainingSeconds: 3599,
  };
  const training = { end: TrainingEnd.EARLY_STOPPING, epochs: 1000, keptEpoch: 995 };
  const run = create(RunSchema, { lastEpoch: epoch, modelName: "default", modelVersion: 100, training });
  const ended = { metrics: { ...epoch, epoch: 995, validationAccuracy: 1 } };
  const events = [
    happened(0, { case: "datasetStarted", value: {} }),
    happened(1, {
      case: "datasetProgressed",
      value: { progress: { phase: "downloading", done: 170_000_000n, total: 170_498_071n } },
    }),
    happened(1, {
      case: "datasetPrepared",
      value: { dataset: { trainImages: 50_000, testImages: 10_000, skippedImages: 12_345 } },
    }),
    happened(2, { case: "trainingStarted", value: { network: "speedrun", engine: "onnxruntime-node 1.22.0" } }),
    happened(3, {
      case: "trainingStarted",
      value: { network: "speedrun", engine: "onnxruntime-node 1.22.0", resumedEpochs: 998, resumedSteps: 1234 },
    }),
    happened(4, { case: "trainingProgressed", value: { progress: { epoch, step: 1234, steps: 5678 } } }),
    happened(5, { case: "trainingEpochCompleted", value: ended }),
    happened(6, { case: "modelTrained", value: {} }),
    happened(7, { case: "evaluationProgressed", value: { progress: { done: 10_000, total: 10_000 } } }),
    happened(8, { case: "modelRejected", value: { report: { imageCount: 10_000, accuracy: 1 } } }),
  ];
  const views = events.map((_, index) => viewAfter(events.slice(0, index + 1), run));
  for (const view of [...views, withDeployment(viewAfter(events, run), run, 9000)])
    for (const line of renderView(view, createStyle(false), 3_599_000)) assert.ok(line.length < 80, line);
});

test("under a limit of time the bar shows the time, since the last epoch may never come", () => {
  const spec = { training: { hyperparameters: { maxMinutes: 5 } } };
  const half = happened(16, {
    case: "trainingProgressed",
    value: { progress: { epoch: metrics, step: 1, steps: 62 } },
  });
  assert.equal(viewAfter([started, half], create(RunSchema, { spec })).stages.training.share, 0.5);
});

test("a training that goes on after a break says from where, and its bar does not begin again", () => {
  const value = { network: "small", engine: "onnxruntime 1", resumedEpochs: 3, hyperparameters: { epochs: 12 } };
  const { share, text } = viewAfter([happened(10, { case: "trainingStarted", value })]).stages.training;
  assert.deepEqual([share, text], [0.25, "goes on after epoch 3"]);
  const within = happened(10, { case: "trainingStarted", value: { ...value, resumedSteps: 20 } });
  assert.equal(viewAfter([within]).stages.training.text, "goes on after step 20 of epoch 4");
});

test("a training that ended says why, and shows the epoch that was kept", () => {
  const epochs = [0.7, 0.8, 0.6].map((validationAccuracy, index) =>
    happened(11 + index, {
      case: "trainingEpochCompleted",
      value: { metrics: { ...metrics, epoch: index + 1, epochs: 40, validationAccuracy } },
    }),
  );
  const afterwards = (summary: { end: TrainingEnd; epochs: number; keptEpoch: number }) =>
    viewAfter([...epochs, happened(14, { case: "modelTrained", value: {} })], create(RunSchema, { training: summary }))
      .stages.training;
  const early = afterwards({ end: TrainingEnd.EARLY_STOPPING, epochs: 3, keptEpoch: 2 });
  assert.equal(early.text, "epoch 2 of 3 kept, stopped early");
  assert.equal(early.detail, "loss 0.500, accuracy 75.0 %, validation 80.0 %, 1,800 img/s");
  assert.equal(afterwards({ end: TrainingEnd.TIME_BUDGET, epochs: 3, keptEpoch: 3 }).text, "3 epochs, time over");
  assert.equal(afterwards({ end: TrainingEnd.COMPLETED, epochs: 1, keptEpoch: 1 }).text, "1 epoch");
});

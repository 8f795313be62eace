import type { Run, RunEvent } from "../../gen/millrace/v1/pipeline_pb.ts";
import { type EpochMetrics, TrainingEnd } from "../../gen/millrace/v1/training_pb.ts";
import { bar, count, percent, type Style, seconds } from "../format.ts";

/** The stages of a run as a person sees them: what each is doing, how far it is and how long it took. */
export interface RunView {
  readonly stages: Readonly<Record<StageName, StageView>>;
}

export type StageName = (typeof stageNames)[number];
export const stageNames = ["ingestion", "training", "evaluation", "prediction"] as const;

export interface StageView {
  readonly state: "waiting" | "working" | "done" | "failed";
  /** Share done, 0 to 1; undefined where it is not known. */
  readonly share?: number | undefined;
  readonly text: string;
  /** More of what it is doing, on a line of its own. */
  readonly detail?: string;
  /** Whether the next change follows soon: nothing to write down where nobody watches. */
  readonly passing?: boolean;
  readonly startedMs?: number;
  readonly durationSeconds?: number;
}

const waiting: StageView = { state: "waiting", text: "" };

export const emptyView: RunView = {
  stages: { ingestion: waiting, training: waiting, evaluation: waiting, prediction: waiting },
};

/** The view after one more event. */
export function applyToView(view: RunView, event: RunEvent, run: Run): RunView {
  const timeMs = Number(event.time?.seconds ?? 0n) * 1000 + (event.time?.nanos ?? 0) / 1e6;
  return changesBy(event, run).reduce((current, change) => withChange(current, change, timeMs), view);
}

/** The view when the run's model answers: the run's own events end with the decision. */
export function withDeployment(view: RunView, { modelName, modelVersion }: Run, nowMs: number): RunView {
  const text = `model ${modelName} version ${modelVersion} is live`;
  return withChange(view, { stage: "prediction", state: "done", share: 1, text }, nowMs);
}

function withChange(view: RunView, { stage, ...update }: StageChange, timeMs: number): RunView {
  const before = view.stages[stage];
  const startedMs = before.startedMs ?? timeMs;
  const ended = update.state === "done" || update.state === "failed";
  const timing = ended ? { startedMs, durationSeconds: (timeMs - startedMs) / 1000 } : { startedMs };
  return { stages: { ...view.stages, [stage]: { ...update, ...timing } } };
}

type StageChange = Pick<StageView, "state" | "share" | "text" | "detail" | "passing"> & { readonly stage: StageName };

function changesBy(runEvent: RunEvent, run: Run): StageChange[] {
  const change = changeBy(runEvent, run);
  const changes = change === undefined ? [] : [change];
  // The prediction service works from the decision on, and says so only when it is done.
  if (runEvent.event.case !== "modelPromoted") return changes;
  return [...changes, { stage: "prediction", state: "working", text: "loading the model" }];
}

function changeBy({ event }: RunEvent, run: Run): StageChange | undefined {
  switch (event.case) {
    case "datasetStarted":
      return { stage: "ingestion", state: "working", text: "opening the source" };
    case "datasetProgressed": {
      const { phase = "", done = 0n, total = 0n } = event.value.progress ?? {};
      const unit = phase === "downloading" ? "bytes" : "images";
      const share = total > 0n ? Number(done) / Number(total) : undefined;
      return {
        stage: "ingestion",
        state: "working",
        share,
        text: `${phase} ${count(done)}${total > 0n ? ` of ${count(total)}` : ""} ${unit}`,
      };
    }
    case "datasetPrepared": {
      const { trainImages = 0, testImages = 0, skippedImages = 0 } = event.value.dataset ?? {};
      const skipped = skippedImages > 0 ? `, ${count(skippedImages)} skipped` : "";
      return {
        stage: "ingestion",
        state: "done",
        share: 1,
        text: `${count(trainImages)} training and ${count(testImages)} test images${skipped}`,
      };
    }
    case "trainingStarted":
      return {
        stage: "training",
        state: "working",
        share: 0,
        text: `network ${event.value.network}, ${event.value.engine}`,
      };
    case "trainingProgressed": {
      const { epoch, step, steps } = event.value.progress ?? {};
      if (epoch === undefined || step === undefined || steps === undefined) return undefined;
      const share = (epoch.epoch - 1 + step / steps) / epoch.epochs;
      const text = `epoch ${epoch.epoch} of ${epoch.epochs}, step ${step} of ${steps}${timeLeft(epoch)}`;
      return { stage: "training", state: "working", share, text, detail: measures(epoch), passing: true };
    }
    case "trainingEpochCompleted": {
      const { metrics } = event.value;
      if (metrics === undefined) return undefined;
      const { epoch, epochs } = metrics;
      const text = `epoch ${epoch} of ${epochs}${timeLeft(metrics)}`;
      return { stage: "training", state: "working", share: epoch / epochs, text, detail: measures(metrics) };
    }
    case "modelTrained":
      return { stage: "training", state: "done", share: 1, text: trainedText(run) };
    case "evaluationStarted":
      return { stage: "evaluation", state: "working", share: 0, text: "reading the test images" };
    case "evaluationProgressed": {
      const { done = 0, total = 0 } = event.value.progress ?? {};
      return {
        stage: "evaluation",
        state: "working",
        share: done / Math.max(1, total),
        text: `${count(done)} of ${count(total)} images`,
      };
    }
    case "modelPromoted":
    case "modelRejected": {
      const { imageCount = 0, accuracy = 0 } = event.value.report ?? {};
      const verdict = event.case === "modelPromoted" ? "promoted" : "rejected";
      return {
        stage: "evaluation",
        state: "done",
        share: 1,
        text: `${count(imageCount)} images, accuracy ${percent(accuracy)}: ${verdict}`,
      };
    }
    case "runFailed": {
      const stage = stageNames.find((name) => name === event.value.stage) ?? "ingestion";
      return { stage, state: "failed", text: `${event.value.code}: ${event.value.message}` };
    }
    default:
      return undefined;
  }
}

function timeLeft({ remainingSeconds }: EpochMetrics): string {
  return remainingSeconds > 0 ? `, ${seconds(remainingSeconds)} left` : "";
}

function measures({ loss, accuracy, validationAccuracy, learningRate, imagesPerSecond }: EpochMetrics): string {
  return [
    `loss ${loss.toFixed(3)}`,
    `accuracy ${percent(accuracy)}`,
    ...(validationAccuracy === undefined ? [] : [`validation ${percent(validationAccuracy)}`]),
    `rate ${Number(learningRate.toPrecision(3))}`,
    `${count(Math.round(imagesPerSecond))} images/s`,
  ].join(", ");
}

const endTexts: Readonly<Partial<Record<TrainingEnd, string>>> = {
  [TrainingEnd.EARLY_STOPPING]: ", stopped early",
  [TrainingEnd.TIME_BUDGET]: ", time over",
};

/** What came of the training, from its last epoch and its summary. */
function trainedText({ lastEpoch, training }: Run): string {
  if (lastEpoch === undefined) return "";
  const { epochs = lastEpoch.epoch, keptEpoch = epochs, end = TrainingEnd.COMPLETED } = training ?? {};
  const kept = keptEpoch === epochs ? "" : `, epoch ${keptEpoch} kept`;
  const speed = `${count(Math.round(lastEpoch.imagesPerSecond))} images/s`;
  return `${epochs} epochs${endTexts[end] ?? ""}${kept}, loss ${lastEpoch.loss.toFixed(3)}, ${speed}`;
}

const barWidth = 16;

/** A line a stage, two where it has more to say. `nowMs` gives the running time of a stage at work. */
export function renderView({ stages }: RunView, style: Style, nowMs: number): string[] {
  return stageNames.flatMap((name) => {
    const stage = stages[name];
    const elapsed =
      stage.durationSeconds ?? (stage.startedMs === undefined ? undefined : (nowMs - stage.startedMs) / 1000);
    const time = elapsed === undefined ? "" : seconds(Math.max(0, elapsed));
    const line = `  ${label(name, stage, style)}  ${progress(stage, style)}  ${time.padStart(8)}  ${stage.text}`;
    return stage.detail === undefined ? [line] : [line, style.dim(`    ${stage.detail}`)];
  });
}

/** A line about a stage for those who do not watch: when it began, every epoch, when it ended. */
export function plainLine(name: StageName, { text, detail, durationSeconds }: StageView): string {
  const more = detail === undefined ? "" : `: ${detail}`;
  return `  ${name.padEnd(10)}  ${text}${more}${durationSeconds === undefined ? "" : ` (${seconds(durationSeconds)})`}`;
}

function label(name: StageName, { state }: StageView, style: Style): string {
  const padded = name.padEnd(10);
  if (state === "waiting") return style.dim(padded);
  if (state === "failed") return style.bad(padded);
  return state === "done" ? style.good(padded) : style.bold(padded);
}

function progress({ state, share }: StageView, style: Style): string {
  if (state === "waiting") return style.dim("·".repeat(barWidth));
  if (state === "failed") return style.bad("×".repeat(barWidth));
  const drawn = bar(share ?? 0, barWidth);
  return state === "done" ? style.good(drawn) : style.accent(drawn);
}

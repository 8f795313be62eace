import type { Run, RunEvent } from "../../gen/millrace/v1/pipeline_pb.ts";
import type { EpochMetrics } from "../../gen/millrace/v1/training_pb.ts";
import { bar, type Style, seconds } from "../format.ts";
import { changesBy, type StageChange, type StageName, stageNames } from "./stage-changes.ts";

/** The stages of a run as a person sees them: what each is doing, how far it is and how long it took. */
export interface RunView {
  readonly stages: Readonly<Record<StageName, StageView>>;
  /** The epochs that have ended. */
  readonly epochs: readonly EpochMetrics[];
}

export interface StageView extends Omit<StageChange, "stage"> {
  readonly startedMs?: number;
  readonly durationSeconds?: number;
}

const waiting: StageView = { state: "waiting", text: "" };

export const emptyView: RunView = {
  stages: { ingestion: waiting, training: waiting, evaluation: waiting, prediction: waiting },
  epochs: [],
};

/** The view after one more event. */
export function applyToView(view: RunView, event: RunEvent, run: Run): RunView {
  const timeMs = Number(event.time?.seconds ?? 0n) * 1000 + (event.time?.nanos ?? 0) / 1e6;
  const ended = event.event.case === "trainingEpochCompleted" ? event.event.value.metrics : undefined;
  const epochs = ended === undefined ? view.epochs : [...view.epochs, ended];
  const trainingSeconds = (timeMs - (view.stages.training.startedMs ?? timeMs)) / 1000;
  const changes = changesBy(event, { run, epochs, trainingSeconds });
  return changes.reduce((current, change) => withChange(current, change, timeMs), { ...view, epochs });
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
  return { ...view, stages: { ...view.stages, [stage]: { ...update, ...timing } } };
}

const barWidth = 12;
/** Those of "59 min 59 s". */
const timeWidth = 11;

/** A line a stage, two where it has more to say. `nowMs` gives the running time of a stage at work. */
export function renderView({ stages }: RunView, style: Style, nowMs: number): string[] {
  return stageNames.flatMap((name) => {
    const stage = stages[name];
    const elapsed =
      stage.durationSeconds ?? (stage.startedMs === undefined ? undefined : (nowMs - stage.startedMs) / 1000);
    const time = elapsed === undefined ? "" : seconds(Math.max(0, elapsed));
    const line = `  ${label(name, stage, style)}  ${progress(stage, style)}  ${time.padStart(timeWidth)}  ${stage.text}`;
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

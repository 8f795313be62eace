import type {
  DatasetPrepared,
  DatasetProgressed,
  EvaluationProgressed,
  RunFailed,
  TrainingProgressed,
  TrainingStarted,
} from "../../gen/millrace/v1/events_pb.ts";
import type { Run, RunEvent } from "../../gen/millrace/v1/pipeline_pb.ts";
import { type EpochMetrics, TrainingEnd } from "../../gen/millrace/v1/training_pb.ts";
import { count, percent, seconds } from "../format.ts";

export const stageNames = ["ingestion", "training", "evaluation", "prediction"] as const;
export type StageName = (typeof stageNames)[number];

/** What an event says of a stage. */
export interface StageChange {
  readonly stage: StageName;
  readonly state: "waiting" | "working" | "done" | "failed";
  /** Share done, 0 to 1; undefined where it is not known. */
  readonly share?: number | undefined;
  /** At most 38 characters, which is what 80 columns leave for it. */
  readonly text: string;
  /** More of what it is doing, on a line of its own of at most 75 characters. */
  readonly detail?: string;
  /** Whether the next change follows soon: nothing to write down where nobody watches. */
  readonly passing?: boolean;
}

/** What a change depends on beside its event. */
export interface ChangeContext {
  /** The run after the event. */
  readonly run: Run;
  /** The epochs that have ended. */
  readonly epochs: readonly EpochMetrics[];
  /** Since the training began. */
  readonly trainingSeconds: number;
}

export function changesBy({ event }: RunEvent, context: ChangeContext): StageChange[] {
  switch (event.case) {
    case "datasetStarted":
      return [{ stage: "ingestion", state: "working", text: "opening the source" }];
    case "datasetProgressed":
      return [ingesting(event.value)];
    case "datasetPrepared":
      return [ingested(event.value)];
    case "trainingStarted":
      return [trainingBegun(event.value)];
    case "trainingProgressed":
      return training(event.value, context);
    case "trainingEpochCompleted":
      return event.value.metrics === undefined ? [] : [epochEnded(event.value.metrics, context)];
    case "modelTrained":
      return [trained(context)];
    case "evaluationStarted":
      return [{ stage: "evaluation", state: "working", share: 0, text: "reading the test images" }];
    case "evaluationProgressed":
      return [evaluating(event.value)];
    case "modelPromoted":
      // The prediction service works from the decision on, and says so only when it is done.
      return [
        decided(event.value.report?.accuracy, "promoted"),
        { stage: "prediction", state: "working", text: "loading the model" },
      ];
    case "modelRejected":
      return [decided(event.value.report?.accuracy, "rejected")];
    case "runFailed":
      return [failed(event.value)];
    default:
      return [];
  }
}

function ingesting({ progress }: DatasetProgressed): StageChange {
  const { phase = "", done = 0n, total = 0n } = progress ?? {};
  const [size, unit] = phase === "downloading" ? [1_000_000n, "MB"] : [1n, "images"];
  const all = total > 0n ? ` of ${count(total / size)}` : "";
  const share = total > 0n ? Number(done) / Number(total) : undefined;
  return { stage: "ingestion", state: "working", share, text: `${phase} ${count(done / size)}${all} ${unit}` };
}

function ingested({ dataset }: DatasetPrepared): StageChange {
  const { trainImages = 0, testImages = 0, skippedImages = 0 } = dataset ?? {};
  const text = `${count(trainImages)} training and ${count(testImages)} test images`;
  const skipped = skippedImages > 0 ? { detail: `${count(skippedImages)} skipped` } : {};
  return { stage: "ingestion", state: "done", share: 1, text, ...skipped };
}

function trainingBegun({
  network,
  engine,
  hyperparameters,
  resumedEpochs,
  resumedSteps,
}: TrainingStarted): StageChange {
  const resumed =
    resumedSteps > 0
      ? `goes on after step ${resumedSteps} of epoch ${resumedEpochs + 1}`
      : `goes on after epoch ${resumedEpochs}`;
  return {
    stage: "training",
    state: "working",
    share: resumedEpochs / Math.max(1, Number(hyperparameters?.epochs ?? 1)),
    text: resumedEpochs + resumedSteps > 0 ? resumed : "begins",
    detail: `network ${network}, ${engine}`,
  };
}

function training({ progress }: TrainingProgressed, context: ChangeContext): StageChange[] {
  const { epoch, step = 0, steps = 1 } = progress ?? {};
  if (epoch === undefined) return [];
  const share = trainedShare(epoch.epoch - 1 + step / steps, epoch, context);
  const detail = [`step ${step}/${steps}`, ...measures(epoch), rate(epoch, 3), speed(epoch)].join(", ");
  return [{ stage: "training", state: "working", share, text: position(epoch), detail, passing: true }];
}

function epochEnded(metrics: EpochMetrics, context: ChangeContext): StageChange {
  const share = trainedShare(metrics.epoch, metrics, context);
  const detail = [...measures(metrics), rate(metrics, 2), speed(metrics)].join(", ");
  return { stage: "training", state: "working", share, text: position(metrics), detail };
}

/** Of the epochs or, under a limit of time, of the time: then the last epoch may never come. */
function trainedShare(
  epochsDone: number,
  { epochs, remainingSeconds }: EpochMetrics,
  { run, trainingSeconds }: ChangeContext,
): number {
  const limited = Number(run.spec?.training?.hyperparameters?.maxMinutes ?? 0) > 0;
  return limited ? trainingSeconds / Math.max(1, trainingSeconds + remainingSeconds) : epochsDone / epochs;
}

const endTexts: Readonly<Partial<Record<TrainingEnd, string>>> = {
  [TrainingEnd.EARLY_STOPPING]: ", stopped early",
  [TrainingEnd.TIME_BUDGET]: ", time over",
};

/** What came of the training: its end, and how good the epoch is whose weights the model has. */
function trained({ run: { lastEpoch, training }, epochs: ended }: ChangeContext): StageChange {
  const { epochs = lastEpoch?.epoch ?? 0, keptEpoch = epochs, end = TrainingEnd.COMPLETED } = training ?? {};
  const whole = epochs === 1 ? "1 epoch" : `${epochs} epochs`;
  const text = `${keptEpoch === epochs ? whole : `epoch ${keptEpoch} of ${epochs} kept`}${endTexts[end] ?? ""}`;
  const kept = ended.findLast(({ epoch }) => epoch === keptEpoch);
  const detail = kept === undefined ? {} : { detail: [...measures(kept), speed(kept)].join(", ") };
  return { stage: "training", state: "done", share: 1, text, ...detail };
}

function position({ epoch, epochs, remainingSeconds }: EpochMetrics): string {
  return `epoch ${epoch} of ${epochs}${remainingSeconds > 0 ? `, ${seconds(remainingSeconds)} left` : ""}`;
}

function measures({ loss, accuracy, validationAccuracy }: EpochMetrics): string[] {
  const validation = validationAccuracy === undefined ? [] : [`validation ${percent(validationAccuracy)}`];
  return [`loss ${loss.toFixed(3)}`, `accuracy ${percent(accuracy)}`, ...validation];
}

/** With as many digits as its line has room for. */
function rate({ learningRate }: EpochMetrics, digits: number): string {
  return `lr ${Number(learningRate.toPrecision(digits))}`;
}

function speed({ imagesPerSecond }: EpochMetrics): string {
  return `${count(Math.round(imagesPerSecond))} img/s`;
}

function evaluating({ progress }: EvaluationProgressed): StageChange {
  const { done = 0, total = 0 } = progress ?? {};
  const text = `${count(done)} of ${count(total)} images`;
  return { stage: "evaluation", state: "working", share: done / Math.max(1, total), text };
}

function decided(accuracy = 0, verdict: "promoted" | "rejected"): StageChange {
  return { stage: "evaluation", state: "done", share: 1, text: `accuracy ${percent(accuracy)}: ${verdict}` };
}

function failed({ stage, code, message }: RunFailed): StageChange {
  const name = stageNames.find((known) => known === stage) ?? "ingestion";
  return { stage: name, state: "failed", text: `${code}: ${message}` };
}

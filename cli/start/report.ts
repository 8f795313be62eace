import { type Run, RunStatusSchema } from "../../gen/millrace/v1/pipeline_pb.ts";
import { count, percent, type Style, seconds, table } from "../format.ts";

/** What came of a run: how good the model is, what the gate decided, and which model is live. */
export function runReport(run: Run, style: Style): string[] {
  return [...evaluationLines(run, style), "", ...decisionLines(run, style)];
}

function evaluationLines({ evaluation }: Run, style: Style): string[] {
  if (evaluation === undefined) return [];
  const {
    accuracy,
    accuracyLow,
    accuracyHigh,
    macroF1,
    logLoss,
    expectedCalibrationError,
    imageCount,
    imagesPerSecond,
    parity,
  } = evaluation;
  const rows = evaluation.classes.map(({ name, precision, recall, f1, imageCount: images }) => [
    name,
    percent(precision),
    percent(recall),
    percent(f1),
    count(images),
  ]);
  return [
    style.bold(`Evaluation on ${count(imageCount)} test images`),
    `  accuracy ${style.bold(percent(accuracy))} (95 % interval ${percent(accuracyLow)} to ${percent(accuracyHigh)}), macro F1 ${percent(macroF1)}`,
    `  log loss ${logLoss.toFixed(3)}, calibration error ${percent(expectedCalibrationError)}, ${count(Math.round(imagesPerSecond))} images/s`,
    `  ONNX against TensorFlow.js: probabilities differ by ${(parity?.maxProbabilityDifference ?? 0).toExponential(1)} at most`,
    "",
    ...table(["class", "precision", "recall", "F1", "images"], rows).map(
      (line, index) => `  ${index === 0 ? style.dim(line) : line}`,
    ),
  ];
}

function decisionLines({ decision, modelName, modelVersion }: Run, style: Style): string[] {
  if (decision === undefined) return [];
  const verdict = decision.promote ? style.good("promoted") : style.bad("rejected");
  const checks = decision.checks.map(
    ({ passed, message }) => `  ${passed ? style.good("✓") : style.bad("✗")} ${message}`,
  );
  const live = decision.promote
    ? `version ${modelVersion} of model "${modelName}" is live`
    : liveStays(decision.championVersion, modelName);
  return [style.bold("Gate: ") + verdict, ...checks, `  ${live}`];
}

function liveStays(championVersion: number, modelName: string): string {
  return championVersion === 0 ? "no model is live" : `version ${championVersion} of model "${modelName}" stays live`;
}

/** Earlier runs, one line each. */
export function earlierRuns(runs: readonly Run[]): string[] {
  return runs.map((run) => {
    const when = new Date(Number(run.requestedAt?.seconds ?? 0n) * 1000).toISOString().slice(0, 16).replace("T", " ");
    const model = run.modelVersion > 0 ? `${run.modelName} version ${run.modelVersion}` : "no model";
    const accuracy = run.evaluation === undefined ? "" : `, accuracy ${percent(run.evaluation.accuracy)}`;
    return `  ${run.runId}  ${when}  ${run.dataset?.name ?? "-"}  ${model}${accuracy}  ${statusName(run)}`;
  });
}

/** The state of a run in a word, such as "succeeded". */
export function statusName({ status }: Run): string {
  return RunStatusSchema.value[status]?.localName.toLowerCase() ?? "unknown";
}

/** How long a run took, in seconds. */
export function runSeconds({ requestedAt, finishedAt }: Run): string {
  if (requestedAt === undefined || finishedAt === undefined) return "";
  return seconds(Number(finishedAt.seconds - requestedAt.seconds) + (finishedAt.nanos - requestedAt.nanos) / 1e9);
}

/** What an answer of the Open Inference Protocol says beside its tensors. The protocol has no fields for it, only parameters. */
import type { Answer, AnsweringModel } from "../answering.ts";
import type { Batched } from "../batcher.ts";

/** By name. Texts, which clients of every version of the contract read, and few of them: entries of a map are what takes protobuf longest. */
export type AnswerParameters = Readonly<Record<string, string>>;

/** Where the model comes from, the names of the answers, and how long they took, as `Predict` has it; of several images the most each time. */
export function answerParameters(
  { version }: Pick<AnsweringModel, "version">,
  classified: readonly Batched<Answer>[],
): AnswerParameters {
  const most = (of: (each: Batched<Answer>) => number): number => Math.max(...classified.map(of));
  const timings = {
    decodeMs: rounded(most(({ preparedMs }) => preparedMs)),
    queueMs: rounded(most(({ queuedMs }) => queuedMs)),
    inferenceMs: rounded(most(({ output }) => output.inferenceMs)),
    batchSize: most(({ batchSize }) => batchSize),
  };
  return {
    // No prediction id has a comma in it.
    prediction_ids: classified.map(({ output }) => output.predictionId).join(),
    dataset_digest: version.lineage?.datasetDigest ?? "",
    run_id: version.lineage?.runId ?? "",
    timings: JSON.stringify(timings),
  };
}

/** To microseconds. */
function rounded(ms: number): number {
  return Math.round(ms * 1_000) / 1_000;
}

/** The thread that makes batches: a few at once at the beginning, then one for each whose memory comes back, until it is ended. */
import { parentPort, workerData } from "node:worker_threads";
import { allocateBatch, buffersOf, createBatchMaker } from "./batches.ts";
import type { LoaderOptions } from "./loader.ts";
import { type ErrorMessage, messageFromError } from "./thread.ts";
import type { TrainingBatch } from "./training-session.ts";

export type LoaderMessage =
  | { readonly kind: "batch"; readonly batch: TrainingBatch }
  | { readonly kind: "failed"; readonly error: ErrorMessage };

/** One that the training uses, one that is ready, one in the making. */
const batchesAtOnce = 3;

const options = workerData as LoaderOptions;

function attempt(work: () => void): void {
  try {
    work();
  } catch (thrown) {
    const message: LoaderMessage = { kind: "failed", error: messageFromError(thrown) };
    parentPort?.postMessage(message);
    parentPort?.close();
  }
}

attempt(() => {
  const maker = createBatchMaker(options);
  let step = options.firstStep;
  const deliver = (batch: TrainingBatch): void => {
    if (step === options.steps) return;
    maker.fill(step++, batch);
    const message: LoaderMessage = { kind: "batch", batch };
    parentPort?.postMessage(message, buffersOf(batch));
  };
  parentPort?.on("message", (batch: TrainingBatch) => attempt(() => deliver(batch)));
  for (let count = 0; count < batchesAtOnce; count++) deliver(allocateBatch(options));
});

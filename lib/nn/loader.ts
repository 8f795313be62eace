/** The batches of a training, one after the other. */
import { allocateBatch, type BatchMakerOptions, createBatchMaker } from "./batches.ts";
import type { TrainingBatch } from "./training-session.ts";

export interface LoaderOptions extends BatchMakerOptions {
  /** The step to begin at, counted from 0 over the whole training. */
  readonly firstStep: number;
  /** Steps of the whole training; the last batch is that of step `steps` - 1. */
  readonly steps: number;
}

export interface BatchLoader {
  /** The next batch, valid until the next call. Rejects with the AppError that ended the loader. */
  next(): Promise<TrainingBatch>;
  /** Ends the loader; resolves when nothing of it is left. */
  close(): Promise<void>;
}

/** Starts making batches. Whoever starts a loader closes it. */
export function startLoader(options: LoaderOptions): BatchLoader {
  const maker = createBatchMaker(options);
  const batch = allocateBatch(options);
  let step = options.firstStep;
  return {
    async next() {
      maker.fill(step++, batch);
      return batch;
    },
    async close() {},
  };
}

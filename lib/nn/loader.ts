/**
 * Batches made ahead of the training, on a thread of their own. A batch's memory belongs to one thread at a time and is handed
 * over, not copied: ONNX Runtime takes no shared memory, and this way none can write to what another reads.
 */
import { on } from "node:events";
import { AppError } from "../errors.ts";
import { type BatchMakerOptions, buffersOf } from "./batches.ts";
import type { LoaderMessage } from "./loader-worker.ts";
import { errorFromMessage, startThread } from "./thread.ts";
import type { TrainingBatch } from "./training-session.ts";

export interface LoaderOptions extends BatchMakerOptions {
  /** The step to begin at, counted from 0 over the whole training. */
  readonly firstStep: number;
  /** Steps of the whole training; the last batch is that of step `steps` - 1. */
  readonly steps: number;
}

export interface BatchLoader {
  /** Resolves when there is a batch, which at the beginning takes as long as the thread does to start; at once where none is left. */
  ready(): Promise<void>;
  /**
   * The next batch, in order. It is valid until the next call, which takes its memory back. Rejects with the error that the thread
   * ended with, INTERNAL where it died without one.
   */
  next(): Promise<TrainingBatch>;
  /** Ends the thread, whatever it is doing; resolves when it has ended. */
  close(): Promise<void>;
}

const program = new URL("./loader-worker.ts", import.meta.url);

/** Starts making batches; `entry` is the thread's program. Whoever starts a loader closes it. */
export function startLoader(options: LoaderOptions, entry: URL = program): BatchLoader {
  const worker = startThread(entry, { workerData: options });
  const messages = on(worker, "message", { close: ["exit"] });
  let step = options.firstStep;
  let used: TrainingBatch | undefined;
  let waiting: TrainingBatch | undefined;
  return {
    async ready() {
      if (step < options.steps) waiting ??= await receive(messages);
    },
    async next() {
      if (step === options.steps) throw new AppError("INTERNAL", `there is no batch after the last of ${step} steps`);
      if (used !== undefined) worker.postMessage(used, buffersOf(used));
      used = undefined;
      used = waiting ?? (await receive(messages));
      waiting = undefined;
      step++;
      return used;
    },
    async close() {
      // Not a message, which would wait for the batch in the making: the thread runs no native code that would not bear it.
      await worker.terminate();
    },
  };
}

async function receive(messages: ReturnType<typeof on>): Promise<TrainingBatch> {
  const { value, done } = await messages.next().catch((thrown: unknown) => {
    throw new AppError("INTERNAL", `the thread that makes batches failed: ${AppError.from(thrown).message}`, {
      cause: thrown,
    });
  });
  if (done) throw new AppError("INTERNAL", "the thread that makes batches has ended");
  const [message] = value as [LoaderMessage];
  if (message.kind === "failed") throw errorFromMessage(message.error);
  return message.batch;
}

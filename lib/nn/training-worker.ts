/** The thread that trains. What it is to do comes as worker data, what it has to say goes to the parent as messages. */
import { parentPort, workerData } from "node:worker_threads";
import { type ErrorMessage, messageFromError } from "./thread.ts";
import { train } from "./trainer.ts";
import type { CheckpointPosition, EpochReport, TrainingProgress, TrainingRequest, TrainingResult } from "./training.ts";

export interface TrainingWorkerData {
  /** Without its checkpoint once the training has taken it: what is here stays as long as the thread. */
  request: TrainingRequest;
  /** One 32-bit word: anything but 0 cancels. Shared memory, because the event loop stands still during a step. */
  readonly cancelled: Int32Array;
}

export type TrainingMessage =
  | { readonly kind: "epoch"; readonly report: EpochReport }
  | { readonly kind: "progress"; readonly progress: TrainingProgress }
  | { readonly kind: "checkpoint"; readonly checkpoint: Uint8Array<ArrayBuffer>; readonly position: CheckpointPosition }
  | { readonly kind: "done"; readonly result: TrainingResult }
  | { readonly kind: "failed"; readonly error: ErrorMessage };

const data = workerData as TrainingWorkerData;

const send = (message: TrainingMessage, handedOver: ArrayBuffer[] = []): void =>
  parentPort?.postMessage(message, handedOver);

/** The request, which is then held by the training alone. */
function takeRequest(): TrainingRequest {
  const { request } = data;
  const { checkpoint: _, ...rest } = request;
  data.request = rest;
  return request;
}

try {
  const result = await train(
    takeRequest(),
    {
      onEpoch: (report) => send({ kind: "epoch", report }),
      onProgress: (progress) => send({ kind: "progress", progress }),
      // Not copied: it is as large as the network with its optimiser, and this thread has no more use for it.
      onCheckpoint: (checkpoint, position) => send({ kind: "checkpoint", checkpoint, position }, [checkpoint.buffer]),
    },
    () => Atomics.load(data.cancelled, 0) !== 0,
  );
  send({ kind: "done", result });
} catch (thrown) {
  send({ kind: "failed", error: messageFromError(thrown) });
}

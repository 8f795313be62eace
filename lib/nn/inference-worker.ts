/** The thread that runs an inference model. It answers requests one after another, in their order. */
import { parentPort, workerData } from "node:worker_threads";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { AppError } from "../errors.ts";
import { describeModel } from "./model-description.ts";
import { type ErrorMessage, messageFromError } from "./thread.ts";

export interface InferenceWorkerData {
  readonly onnx: Uint8Array;
  readonly intraOpThreads: number;
  /** One 32-bit word: anything but 0 closes. Shared memory, because requests before it in the queue are to be dropped. */
  readonly closing: Int32Array;
}

/** A request, or nothing, to wake a thread that is to close. */
export type InferenceRequest = InferenceRun | undefined;

export interface InferenceRun {
  readonly id: number;
  readonly pixels: Uint8Array<ArrayBuffer>;
  readonly count: number;
}

export type InferenceMessage =
  | { readonly kind: "ready" }
  | { readonly kind: "refused"; readonly error: ErrorMessage }
  | {
      readonly kind: "answer";
      readonly id: number;
      readonly probabilities: Float32Array<ArrayBuffer>;
      readonly durationMs: number;
    }
  | { readonly kind: "failed"; readonly id: number; readonly error: ErrorMessage };

const { onnx, intraOpThreads, closing } = workerData as InferenceWorkerData;

let closed = false;

const send = (message: InferenceMessage, transfer: ArrayBuffer[] = []): void =>
  parentPort?.postMessage(message, transfer);

try {
  const session = await load();
  const { channels, height, width } = describeModel(onnx).input;
  const answer = async ({ id, pixels, count }: InferenceRun): Promise<void> => {
    const started = performance.now();
    const feeds = { pixels: new Tensor("uint8", pixels, [count, channels, height, width]) };
    const { probabilities } = await session.run(feeds, ["probabilities"]);
    const values = new Float32Array(probabilities?.data as Float32Array);
    send({ kind: "answer", id, probabilities: values, durationMs: performance.now() - started }, [values.buffer]);
  };
  let last: Promise<void> = Promise.resolve();
  parentPort?.on("message", (request: InferenceRequest) => {
    last = last.then(async () => {
      if (Atomics.load(closing, 0) !== 0) return close(session);
      if (request === undefined) return;
      await answer(request).catch((thrown) =>
        send({ kind: "failed", id: request.id, error: messageFromError(thrown) }),
      );
    });
  });
  send({ kind: "ready" });
} catch (thrown) {
  send({ kind: "refused", error: messageFromError(thrown) });
}

/** Lets go of the model and of the port, which ends the thread. */
async function close(session: InferenceSession): Promise<void> {
  if (closed) return;
  closed = true;
  parentPort?.close();
  await session.release();
}

async function load(): Promise<InferenceSession> {
  try {
    return await InferenceSession.create(onnx, { intraOpNumThreads: intraOpThreads, logSeverityLevel: 3 });
  } catch (cause) {
    throw new AppError("ARTIFACT_CORRUPT", "ONNX Runtime cannot load the model", { cause });
  }
}

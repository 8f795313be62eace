/** The thread that runs an inference model. It answers requests one after another, in their order. */
import { parentPort, workerData } from "node:worker_threads";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { AppError } from "../errors.ts";
import { describeModel } from "./model-description.ts";
import { type ErrorMessage, messageFromError } from "./thread.ts";

export interface InferenceWorkerData {
  readonly onnx: Uint8Array;
  readonly intraOpThreads: number;
}

export interface InferenceRequest {
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

const { onnx, intraOpThreads } = workerData as InferenceWorkerData;

const send = (message: InferenceMessage, transfer: ArrayBuffer[] = []): void =>
  parentPort?.postMessage(message, transfer);

try {
  const session = await load();
  const { channels, height, width } = describeModel(onnx).input;
  let last: Promise<void> = Promise.resolve();
  parentPort?.on("message", ({ id, pixels, count }: InferenceRequest) => {
    last = last.then(async () => {
      try {
        const started = performance.now();
        const feeds = { pixels: new Tensor("uint8", pixels, [count, channels, height, width]) };
        const { probabilities } = await session.run(feeds, ["probabilities"]);
        const values = Float32Array.from(probabilities?.data as Float32Array);
        send({ kind: "answer", id, probabilities: values, durationMs: performance.now() - started }, [values.buffer]);
      } catch (thrown) {
        send({ kind: "failed", id, error: messageFromError(thrown) });
      }
    });
  });
  send({ kind: "ready" });
} catch (thrown) {
  send({ kind: "refused", error: messageFromError(thrown) });
}

async function load(): Promise<InferenceSession> {
  try {
    return await InferenceSession.create(onnx, { intraOpNumThreads: intraOpThreads, logSeverityLevel: 3 });
  } catch (cause) {
    throw new AppError("ARTIFACT_CORRUPT", "ONNX Runtime cannot load the model", { cause });
  }
}

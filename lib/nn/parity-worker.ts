/** The thread in which TensorFlow.js predicts: its JavaScript backend would block a service for seconds. */
import { parentPort, workerData } from "node:worker_threads";
import { predictWithLayersModel } from "./parity.ts";
import type { ParityRequest } from "./parity-thread.ts";
import { type ErrorMessage, messageFromError } from "./thread.ts";

export type ParityAnswer =
  | { readonly kind: "predicted"; readonly probabilities: Float32Array }
  | { readonly kind: "failed"; readonly error: ErrorMessage };

const { files, ...request } = workerData as ParityRequest;

async function answer(): Promise<ParityAnswer> {
  try {
    return { kind: "predicted", probabilities: await predictWithLayersModel(files, request) };
  } catch (thrown) {
    return { kind: "failed", error: messageFromError(thrown) };
  }
}

parentPort?.postMessage(await answer());

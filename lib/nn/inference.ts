/** Inference in a thread of its own, because ONNX Runtime holds the thread that calls it. */
import type { Worker } from "node:worker_threads";
import { AppError } from "../errors.ts";
import type { InferenceMessage, InferenceRun, InferenceWorkerData } from "./inference-worker.ts";
import { describeModel, type ModelDescription } from "./model-description.ts";
import { errorFromMessage, startThread } from "./thread.ts";

/** Dispose of it to end its thread: what is pending rejects at once, the run it is in is the last. */
export interface InferenceWorker extends AsyncDisposable {
  /** What the model says about itself. */
  readonly description: ModelDescription;
  /** False once the thread has ended or been told to; every later `run` rejects. */
  readonly alive: boolean;
  /** Resolves with the reason if the thread ends without having been told to; else it stays pending. */
  readonly lost: Promise<AppError>;
  /**
   * Classifies n images, uint8 [n, C, H, W]. The pixels are copied unless they fill their ArrayBuffer and `transfer` is set. Runs are
   * answered in order. Rejects with INVALID_REQUEST for another number of bytes, MODEL_NOT_READY if the thread died.
   */
  run(pixels: Uint8Array, n: number, options?: RunOptions): Promise<Predictions>;
}

export interface RunOptions {
  /** Hand the buffer over instead of copying it: the caller cannot read it afterwards. Default false. */
  readonly transfer?: boolean;
}

export interface Predictions {
  /** [n, classes], rows that sum to 1. */
  readonly probabilities: Float32Array;
  /** Of the model's run alone. */
  readonly durationMs: number;
}

export interface InferenceOptions {
  readonly onnx: Uint8Array;
  /** Default 0, which leaves the number to ONNX Runtime: one a physical core. */
  readonly intraOpThreads?: number;
}

interface PendingRun {
  resolve(predictions: Predictions): void;
  reject(reason: AppError): void;
}

/** Loads a model that Millrace has trained. Throws ARTIFACT_CORRUPT if it is none or cannot be loaded. */
export async function createInferenceWorker({ onnx, intraOpThreads = 0 }: InferenceOptions): Promise<InferenceWorker> {
  const description = describeModel(onnx);
  const closing = new Int32Array(new SharedArrayBuffer(4));
  const workerData: InferenceWorkerData = { onnx, intraOpThreads, closing };
  const thread = startThread(new URL("./inference-worker.ts", import.meta.url), { workerData });
  const pending = new Map<number, PendingRun>();
  const state = watch(thread, pending);
  await state.ready;
  let nextId = 0;
  return {
    description,
    lost: state.lost,
    get alive() {
      return state.death() === undefined;
    },
    async run(pixels, n, { transfer = false } = {}) {
      checkPixels(description, pixels, n);
      const death = state.death();
      if (death !== undefined) throw death;
      const id = nextId++;
      const own = transfer && pixels.buffer instanceof ArrayBuffer && pixels.byteLength === pixels.buffer.byteLength;
      const request: InferenceRun = {
        id,
        count: n,
        pixels: own ? (pixels as Uint8Array<ArrayBuffer>) : new Uint8Array(pixels),
      };
      return new Promise((resolve, reject) => {
        pending.set(id, { resolve, reject });
        thread.postMessage(request, [request.pixels.buffer]);
      });
    },
    async [Symbol.asyncDispose]() {
      Atomics.store(closing, 0, 1);
      state.close();
      thread.postMessage(undefined);
      await state.ended;
    },
  };
}

/** Settles pending runs by the thread's messages, and all of them when it ends. */
function watch(thread: Worker, pending: Map<number, PendingRun>) {
  const closed = dead("was closed");
  let death: AppError | undefined;
  let lose: (reason: AppError) => void = () => undefined;
  const lost = new Promise<AppError>((resolve) => {
    lose = resolve;
  });
  const settle = (id: number): PendingRun | undefined => {
    const run = pending.get(id);
    pending.delete(id);
    return run;
  };
  const die = (reason: AppError): void => {
    death ??= reason;
    for (const id of [...pending.keys()]) settle(id)?.reject(death);
  };
  const ended = new Promise<void>((resolve) => thread.once("exit", () => resolve()));
  const ready = new Promise<void>((resolve, reject) => {
    thread.on("message", (message: InferenceMessage) => {
      if (message.kind === "ready") resolve();
      else if (message.kind === "refused") reject(errorFromMessage(message.error));
      else if (message.kind === "failed") settle(message.id)?.reject(errorFromMessage(message.error));
      else settle(message.id)?.resolve({ probabilities: message.probabilities, durationMs: message.durationMs });
    });
    thread.on("error", (error) => die(dead(`failed: ${AppError.from(error).message}`, error)));
    thread.on("exit", (code) => {
      const told = death === closed;
      die(dead(`ended with exit code ${code}`));
      reject(death);
      if (!told && death !== undefined) lose(death);
    });
  });
  return { ready, ended, lost, death: () => death, close: () => die(closed) };
}

function dead(what: string, cause?: unknown): AppError {
  return new AppError("MODEL_NOT_READY", `the inference thread ${what}; create another worker`, { cause });
}

function checkPixels({ input }: ModelDescription, pixels: Uint8Array, n: number): void {
  const { channels, height, width } = input;
  const expected = n * channels * height * width;
  if (Number.isInteger(n) && n > 0 && pixels.length === expected) return;
  const message = `${n} images of ${channels}x${height}x${width} need ${expected} bytes of pixels, there are ${pixels.length}`;
  throw new AppError("INVALID_REQUEST", message, { details: { field: "pixels" } });
}

/** A thread that holds one model at a time, because ONNX Runtime holds the thread that calls it. */
import { Worker } from "node:worker_threads";
import { AppError } from "../errors.ts";

export interface InferenceOptions {
  readonly onnx: Uint8Array;
  /** Default 0, which leaves the number to ONNX Runtime: one a physical core. */
  readonly intraOpThreads?: number;
}

export interface Predictions {
  /** [n, classes], rows that sum to 1. */
  readonly probabilities: Float32Array;
  /** Of the model's run alone. */
  readonly durationMs: number;
}

export type InferenceRequest =
  | { readonly kind: "load"; readonly onnx: Uint8Array; readonly intraOpThreads: number }
  | { readonly kind: "run"; readonly pixels: Uint8Array<ArrayBuffer>; readonly shape: readonly number[] }
  | { readonly kind: "unload" }
  | { readonly kind: "end" };

export type InferenceReply =
  | { readonly kind: "done" }
  | {
      readonly kind: "predictions";
      readonly probabilities: Float32Array<ArrayBuffer>;
      readonly durationMs: number;
    }
  | { readonly kind: "failed"; readonly message: string };

/**
 * Answers requests one after another; all have to be answered before it is ended. A request rejects with MODEL_NOT_READY if the thread dies or has
 * died; after any other error it can be used on.
 */
export interface InferenceThread {
  /** Rejects with ARTIFACT_CORRUPT if ONNX Runtime cannot load the model. */
  load(options: InferenceOptions): Promise<void>;
  /**
   * Runs the model on pixels, uint8 [n, C, H, W] as `shape` says. Their buffer is handed over. Rejects with INTERNAL and the message of
   * ONNX Runtime.
   */
  run(pixels: Uint8Array<ArrayBuffer>, shape: readonly number[]): Promise<Predictions>;
  /** Lets go of the model and its memory; another can be loaded. */
  unload(): Promise<void>;
  /** Ends the thread, unless it has ended. */
  end(): Promise<void>;
  /** Why the thread can be asked no more, once it has ended. */
  readonly death: AppError | undefined;
  /** Called if the thread ends without having been told to. */
  onDeath: ((reason: AppError) => void) | undefined;
}

interface Asked {
  resolve(reply: InferenceReply): void;
  reject(reason: AppError): void;
}

/** No network of ours needs a tenth of it, for the largest batch. */
const defaultAnswerWithinMs = 60_000;

/**
 * Starts one, without waiting until it has started: it can be asked at once. One that leaves a request without an answer for `answerWithinMs`
 * counts as dead, whatever it still does: native code cannot be interrupted.
 */
export function startInferenceThread(answerWithinMs = defaultAnswerWithinMs): InferenceThread {
  // Not the process's options: the thread would carry out `--import tsx`, which makes its start three times as expensive.
  const worker = new Worker(new URL("./inference-worker.mjs", import.meta.url), { execArgv: [] });
  /** Requests without an answer yet, in their order. */
  const asked: Asked[] = [];
  let death: AppError | undefined;
  let ending = false;
  let error: Error | undefined;
  const die = (how: string): void => {
    if (death !== undefined) return;
    death = new AppError("MODEL_NOT_READY", `the inference thread ${how}; load the model again`, { cause: error });
    for (const { reject } of asked.splice(0)) reject(death);
    if (!ending) thread.onDeath?.(death);
  };
  const giveUp = (): void => {
    die(`did not answer for ${answerWithinMs} ms`);
    void worker.terminate();
  };

  const ask = (request: InferenceRequest, transfer: ArrayBuffer[] = []): Promise<InferenceReply> => {
    const answered = new Promise<InferenceReply>((resolve, reject) => {
      if (death !== undefined) return reject(death);
      asked.push({ resolve, reject });
      worker.postMessage(request, transfer);
    });
    const timer = setTimeout(giveUp, answerWithinMs);
    return answered.finally(() => clearTimeout(timer));
  };

  const thread: InferenceThread = {
    async load({ onnx, intraOpThreads = 0 }) {
      await ask({ kind: "load", onnx, intraOpThreads }).catch((cause) => {
        throw death ?? new AppError("ARTIFACT_CORRUPT", "ONNX Runtime cannot load the model", { cause });
      });
    },
    async run(pixels, shape) {
      return (await ask({ kind: "run", pixels, shape }, [pixels.buffer])) as Extract<InferenceReply, Predictions>;
    },
    async unload() {
      await ask({ kind: "unload" });
    },
    async end() {
      ending = true;
      if (death !== undefined) return;
      worker.postMessage({ kind: "end" } satisfies InferenceRequest);
      await ended;
    },
    get death() {
      return death;
    },
    onDeath: undefined,
  };

  worker.on("message", (reply: InferenceReply) => {
    const oldest = asked.shift();
    if (reply.kind === "failed") oldest?.reject(new AppError("INTERNAL", reply.message));
    else oldest?.resolve(reply);
  });
  worker.on("error", (thrown: Error) => {
    error = thrown;
  });
  const ended = new Promise<void>((resolve) => {
    worker.once("exit", (code) => {
      die(error === undefined ? `ended with exit code ${code}` : `failed: ${error.message}`);
      resolve();
    });
  });
  return thread;
}

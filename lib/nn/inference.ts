/**
 * Models in threads. Each has one of its own: a thread that dies takes no other model with it, and no version waits while another runs a batch
 * or is loaded, which holds a thread for 4 ms (`small`) to 16 ms (`paper`).
 */
import { AppError } from "../errors.ts";
import {
  type InferenceOptions,
  type InferenceThread,
  type Predictions,
  startInferenceThread,
} from "./inference-thread.ts";
import { describeModel, type ModelDescription } from "./model-description.ts";

/** A model in its thread. Dispose of it to unload it: what it was asked for before is still answered. */
export interface InferenceWorker extends AsyncDisposable {
  /** What the model says about itself. */
  readonly description: ModelDescription;
  /** False once its thread has ended or it is unloaded; every later `run` rejects. */
  readonly alive: boolean;
  /** Resolves with the reason if the thread ends while the model is loaded; else it stays pending. */
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

/** Threads for models that come and go. Dispose of it when no model is being loaded; what is loaded stays until it is unloaded. */
export interface InferenceThreads extends AsyncDisposable {
  /** Loads a model that Millrace has trained. Throws ARTIFACT_CORRUPT if it is none or cannot be loaded. */
  load(options: InferenceOptions): Promise<InferenceWorker>;
}

/**
 * Keeps the thread of a model that was unloaded for the next one, one at most. So two suffice however often the model that answers is exchanged:
 * the next takes what the one before the last has left. An exchange of `small` then takes 9 ms of processor time instead of 89, one of `paper`
 * 37 instead of 106, measured on Node 20 and AMD EPYC; a thread that waits holds 10 MB.
 */
export function createInferenceThreads(): InferenceThreads {
  let spare: InferenceThread | undefined;
  let closed = false;
  const take = (): InferenceThread => {
    const thread = spare ?? startInferenceThread();
    spare = undefined;
    thread.onDeath = undefined;
    return thread;
  };
  const giveBack = async (thread: InferenceThread): Promise<void> => {
    if (closed || spare !== undefined || thread.death !== undefined) return thread.end();
    spare = thread;
    thread.onDeath = () => {
      spare = undefined;
    };
  };
  return {
    load: (options) => loadModel(options, take, giveBack),
    async [Symbol.asyncDispose]() {
      closed = true;
      await spare?.end();
    },
  };
}

/** Loads a model into a thread that ends with it. Errors as {@link InferenceThreads.load}. */
export function createInferenceWorker(options: InferenceOptions): Promise<InferenceWorker> {
  return loadModel(options, startInferenceThread, (thread) => thread.end());
}

async function loadModel(
  options: InferenceOptions,
  take: () => InferenceThread,
  giveBack: (thread: InferenceThread) => Promise<void>,
): Promise<InferenceWorker> {
  const description = describeModel(options.onnx);
  const { channels, height, width } = description.input;
  const thread = take();
  try {
    await thread.load(options);
  } catch (thrown) {
    await giveBack(thread);
    throw thrown;
  }
  const lost = new Promise<AppError>((resolve) => {
    thread.onDeath = resolve;
  });
  let last: Promise<unknown> = Promise.resolve();
  let unloaded: Promise<void> | undefined;

  async function unload(): Promise<void> {
    await last;
    thread.onDeath = undefined;
    try {
      // A dead thread has taken the model with it.
      if (thread.death === undefined) await thread.unload();
    } finally {
      await giveBack(thread);
    }
  }

  return {
    description,
    lost,
    get alive() {
      return unloaded === undefined && thread.death === undefined;
    },
    async run(pixels, n, { transfer = false } = {}) {
      checkPixels(description, pixels, n);
      const own = transfer && pixels.buffer instanceof ArrayBuffer && pixels.byteLength === pixels.buffer.byteLength;
      const handedOver = own ? (pixels as Uint8Array<ArrayBuffer>) : new Uint8Array(pixels);
      if (unloaded !== undefined) throw new AppError("MODEL_NOT_READY", "the model was unloaded; load it again");
      // A microtask later: a thread that is terminated in this very turn must not be in native code, which would end the process.
      const predictions = Promise.resolve().then(() => thread.run(handedOver, [n, channels, height, width]));
      // They are answered in order: when it is, all are.
      last = predictions.catch(() => undefined);
      return predictions;
    },
    [Symbol.asyncDispose]() {
      unloaded ??= unload();
      return unloaded;
    },
  };
}

function checkPixels({ input }: ModelDescription, pixels: Uint8Array, n: number): void {
  const { channels, height, width } = input;
  const expected = n * channels * height * width;
  if (Number.isInteger(n) && n > 0 && pixels.length === expected) return;
  const message = `${n} images of ${channels}x${height}x${width} need ${expected} bytes of pixels, there are ${pixels.length}`;
  throw new AppError("INVALID_REQUEST", message, { details: { field: "pixels" } });
}

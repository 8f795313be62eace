import { once } from "node:events";
import { AppError } from "../errors.ts";
import type { LayersModelFiles } from "./layers-model.ts";
import type { ModelDescription } from "./model-description.ts";
import type { ParityAnswer } from "./parity-worker.ts";
import type { Normalization } from "./preprocessing.ts";
import { errorFromMessage, startThread } from "./thread.ts";

/** Images for TensorFlow.js to classify. */
export interface ParityRequest {
  readonly files: LayersModelFiles;
  /** uint8 [count, C, H, W]. */
  readonly pixels: Uint8Array;
  readonly count: number;
  readonly normalization: Normalization;
  /** Whether the compiled model looks at mirror images as well. */
  readonly mirrored: boolean;
}

/** What the JavaScript backend is given to do: a few seconds' worth, at some 0.5 GFLOP/s. */
const flopBudget = 2e9;
const mostImages = 32;

/** How many images to compare: fewer of a larger network, and at least one, however long that takes. */
export function parityImageCount({
  forwardFlopsPerImage,
  mirrored,
}: Pick<ModelDescription, "forwardFlopsPerImage" | "mirrored">): number {
  const looks = mirrored ? 2 : 1;
  return Math.max(1, Math.min(mostImages, Math.floor(flopBudget / (looks * forwardFlopsPerImage))));
}

/**
 * Probabilities [count, classes] by TensorFlow.js, in a thread of its own.
 *
 * @throws AppError CANCELLED when aborted; INTERNAL when the thread ends without an answer.
 */
export async function predictInThread(request: ParityRequest, signal: AbortSignal): Promise<Float32Array> {
  const thread = startThread(new URL("./parity-worker.ts", import.meta.url), { workerData: request });
  try {
    const ended = once(thread, "exit", { signal }).then(() => undefined);
    const answered = once(thread, "message", { signal }) as Promise<[ParityAnswer]>;
    // Only one of the two is waited for; the other ends with the thread, or rejects like it when aborted.
    ended.catch(() => undefined);
    const [answer] = (await Promise.race([answered, ended])) ?? [];
    if (answer === undefined)
      throw new AppError("INTERNAL", "the thread that compares the engines ended without an answer");
    if (answer.kind === "failed") throw errorFromMessage(answer.error);
    return answer.probabilities;
  } finally {
    await thread.terminate();
  }
}

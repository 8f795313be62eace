import { setTimeout as delay } from "node:timers/promises";
import { AppError } from "../../lib/errors.ts";
import type { BatchSettings } from "../../services/prediction/batch-settings.ts";
import { type Batcher, createBatcher, type Dispatch } from "../../services/prediction/batcher.ts";
import type { Priority } from "../../services/prediction/priority-queue.ts";

export const settings: BatchSettings = { maxBatchSize: 4, maxDelayMs: 0, maxQueueLength: 100, maxWaitMs: 60_000 };
export const double = async (inputs: readonly number[]) => ({
  outputs: inputs.map((input) => 2 * input),
  durationMs: 1,
});

/** What a run says that it took, for each of its inputs: so long that a batch is not handed over while another runs. */
export const runMs = 30;

/** A batcher whose runs wait until they are let go, one after another. */
export function gatedBatcher(changes: Partial<BatchSettings> = {}, { inputMs = runMs } = {}) {
  const batches: (readonly number[])[] = [];
  const dispatches: Dispatch[] = [];
  const gates: (() => void)[] = [];
  const batcher = createBatcher<number, number>({
    settings: { ...settings, ...changes },
    maxPreparing: 2,
    async run(inputs) {
      batches.push(inputs);
      await new Promise<void>((resolve) => gates.push(resolve));
      return { ...(await double(inputs)), durationMs: inputMs * inputs.length };
    },
    onDispatch: (dispatch) => dispatches.push(dispatch),
  });
  const letGo = async (): Promise<void> => {
    await delay(0);
    gates.shift()?.();
    await delay(0);
  };
  return { batcher, batches, dispatches, letGo };
}

export const outputOf = async (batcher: Batcher<number, number>, input: number, priority?: Priority): Promise<number> =>
  (await batcher.submit(() => input, priority && { priority })).output;

export async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "no error",
    (error) => AppError.from(error).code,
  );
}

/** Lets so many items through, one at a time, which teaches it what one takes. */
export async function serveAlone({ batcher, letGo }: ReturnType<typeof gatedBatcher>, count: number): Promise<void> {
  for (let item = 0; item < count; item++) {
    const answer = outputOf(batcher, item);
    await letGo();
    await answer;
  }
}

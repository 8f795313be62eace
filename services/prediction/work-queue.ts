import type { Logger } from "../../lib/log.ts";

/** Work that is done one piece after another. */
export interface WorkQueue {
  /** Resolves when the piece is done. One that fails is logged, unless the signal has aborted. */
  add(work: () => Promise<void>): Promise<void>;
  /** Resolves when all that was added is done. */
  settled(): Promise<void>;
}

/** `event` is the name under which failures are logged. */
export function createWorkQueue(event: string, logger: Logger, signal: AbortSignal): WorkQueue {
  let last: Promise<void> = Promise.resolve();
  return {
    add(work) {
      last = last.then(work).catch((error: unknown) => {
        if (!signal.aborted) logger.error({ event, error }, "a piece of work was not completed");
      });
      return last;
    },
    settled: () => last,
  };
}

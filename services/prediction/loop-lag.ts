/**
 * How long what the event loop reads now may have waited to be read, in milliseconds: it came during the turn of the loop before, or in this one.
 * Where more comes than it gets through, most of the waiting is here, before anything of a request is seen.
 */
export type LoopLag = () => number;

/** A turn that ended longer ago than this says nothing of now: the loop was idle since. */
const idleMs = 20;

export function createLoopLag(): LoopLag {
  let beganMs: number | undefined;
  let endedMs = 0;
  let lastMs = 0;
  const end = (): void => {
    endedMs = performance.now();
    lastMs = endedMs - (beganMs ?? endedMs);
    beganMs = undefined;
  };
  return () => {
    const nowMs = performance.now();
    if (beganMs === undefined) {
      if (nowMs - endedMs > idleMs) lastMs = 0;
      beganMs = nowMs;
      // Runs when all that was there to read has been read.
      setImmediate(end);
    }
    return lastMs + nowMs - beganMs;
  };
}

/** A signal that aborts with the first of several others. */
export interface JoinedSignal {
  readonly signal: AbortSignal;
  /** Stops listening to the others. */
  release(): void;
}

/** Like AbortSignal.any, which in Node 20 keeps what it made for as long as its longest-lived source. */
export function joinSignals(...sources: readonly AbortSignal[]): JoinedSignal {
  const controller = new AbortController();
  const stops = sources.map((source) => onAbort(source, () => controller.abort(source.reason)));
  return {
    signal: controller.signal,
    release() {
      for (const stop of stops) stop();
    },
  };
}

/**
 * The result of `work`, or a rejection with the signal's reason as soon as that aborts: work that does not listen to
 * the signal cannot hold up its caller.
 */
export function untilAborted<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = onAbort(signal, () => reject(signal.reason));
    if (signal.aborted) return;
    work().then(resolve, reject).finally(stop);
  });
}

/** Calls back when the signal aborts, at once if it has. Returns how to stop listening. */
export function onAbort(signal: AbortSignal, callback: () => void): () => void {
  if (signal.aborted) {
    callback();
    return () => {};
  }
  signal.addEventListener("abort", callback, { once: true });
  return () => signal.removeEventListener("abort", callback);
}

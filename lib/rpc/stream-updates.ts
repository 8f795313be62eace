/**
 * Turns work that calls back into the answer of a server-streaming RPC: each `send` is a message, and the stream ends
 * when the work does, with its error if it has one. A caller that goes away aborts the work.
 *
 * Messages wait in memory if the caller reads slowly: meant for progress, not for data.
 */
export async function* streamUpdates<T>(
  callerSignal: AbortSignal,
  work: (send: (message: T) => void, signal: AbortSignal) => Promise<void>,
): AsyncGenerator<T> {
  const gone = new AbortController();
  const signal = AbortSignal.any([callerSignal, gone.signal]);
  const waiting: T[] = [];
  let wake = () => {};
  let finished = false;
  const done = work((message) => {
    waiting.push(message);
    wake();
  }, signal).finally(() => {
    finished = true;
    wake();
  });
  // Awaited below; until then a failure must not count as unhandled.
  done.catch(() => undefined);
  try {
    while (!finished || waiting.length > 0) {
      const next = waiting.shift();
      if (next !== undefined) yield next;
      else
        await new Promise<void>((resolve) => {
          wake = resolve;
          if (finished || waiting.length > 0) resolve();
        });
    }
    await done;
  } finally {
    gone.abort();
  }
}

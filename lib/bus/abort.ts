/**
 * The promise's result, or the reason of the signal as soon as it aborts; what becomes of the promise afterwards is
 * ignored. Leaves no listener on the signal, which may live as long as the process.
 */
export function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    void promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

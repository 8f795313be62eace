/** Waits, at most until the signal aborts. */
export function pause(timeMs: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, timeMs);
    signal?.addEventListener("abort", end);
    if (signal?.aborted) end();
  });
}

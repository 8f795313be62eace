import type { TestContext } from "node:test";
import type { Worker } from "node:worker_threads";

/** The threads that this process starts from now on, while the test runs. Those that are left at its end are terminated. */
export function collectThreads(t: TestContext): Worker[] {
  const threads: Worker[] = [];
  const collect = (thread: Worker) => {
    // The loader of TypeScript may start one too, to whose end nobody listens.
    if (thread.listenerCount("exit") > 0) threads.push(thread);
  };
  process.on("worker", collect);
  t.after(async () => {
    process.off("worker", collect);
    for (const thread of threads) await thread.terminate();
  });
  return threads;
}

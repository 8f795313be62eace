import type { TestContext } from "node:test";
import type { Worker } from "node:worker_threads";

/** The threads that this process starts from now on, while the test runs. */
export function collectThreads(t: TestContext): Worker[] {
  const threads: Worker[] = [];
  const collect = (thread: Worker) => threads.push(thread);
  process.on("worker", collect);
  t.after(() => process.off("worker", collect));
  return threads;
}

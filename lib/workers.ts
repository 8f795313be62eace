/** One service in several processes that share its port, for machines with more cores than one JavaScript thread can use. */
import cluster, { type Worker } from "node:cluster";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { AppError } from "./errors.ts";
import type { Logger } from "./log.ts";

export interface WorkersOptions {
  readonly count: number;
  /** Variables of the environment of worker n, counted from 1, beside those of this process. */
  readonly env: (n: number) => NodeJS.ProcessEnv;
  readonly logger: Logger;
  /** Ends the workers, each of which ends its work in an orderly way. */
  readonly stopping: AbortSignal;
}

/** A worker that lives so long has started well; one that dies sooner is started again after a pause. */
const healthyMs = 30_000;
const pausesMs = [0, 1_000, 2_000, 5_000, 10_000] as const;

/** What a worker tells all of them by way of the first process, or, without a value, asks for. */
interface SharedValue {
  readonly shared: string;
  readonly value?: unknown;
}

/**
 * A value that all workers of a service have alike, such as a setting that is changed while it runs. `apply` gets what one of them sets, and
 * in a worker that starts later what was set last. Returns the function that sets it for all. Without workers there is nobody to tell.
 */
export function shareAmongWorkers<T>(name: string, apply: (value: T) => void): (value: T) => void {
  if (!cluster.isWorker) return () => {};
  process.on("message", (message) => {
    if (isShared(message) && message.shared === name) apply(message.value as T);
  });
  // Who listens is not kept from ending.
  process.channel?.unref();
  const tell = (message: SharedValue) => process.send?.(message, undefined, undefined, ignoreGone);
  tell({ shared: name });
  return (value) => tell({ shared: name, value });
}

/** Passes on what workers tell each other, until disposed of. */
function relayShared(): Disposable {
  const last = new Map<string, SharedValue>();
  const relay = (from: Worker, message: unknown): void => {
    if (!isShared(message)) return;
    if (message.value === undefined) {
      const known = last.get(message.shared);
      if (known !== undefined) from.send(known, ignoreGone);
      return;
    }
    last.set(message.shared, message);
    // To the one that set it as well: so all see the same order, and end with the same value, when two set one at a time.
    for (const worker of Object.values(cluster.workers ?? {})) worker?.send(message, ignoreGone);
  };
  cluster.on("message", relay);
  return { [Symbol.dispose]: () => cluster.off("message", relay) };
}

/** Who is to be told may have died just now; without a function to hear of that the teller would die of it, too. */
function ignoreGone(): void {}

function isShared(message: unknown): message is SharedValue {
  return typeof message === "object" && message !== null && "shared" in message;
}

/**
 * Runs this very program in `count` workers and starts those again that die, until `stopping` aborts. Resolves when all have ended. Connections
 * go to the workers in turn. Throws INTERNAL when a worker has died early several times in a row: starting it again would not help.
 */
export async function runWorkers({ count, env, logger, stopping }: WorkersOptions): Promise<void> {
  using _ = relayShared();
  const failing = new AbortController();
  const ending = AbortSignal.any([stopping, failing.signal]);
  const keepAlive = async (n: number): Promise<void> => {
    for (let earlyDeaths = 0; !ending.aborted; ) {
      await delay(pausesMs[earlyDeaths], undefined, { signal: ending }).catch(() => undefined);
      if (ending.aborted) return;
      const startedMs = performance.now();
      const reason = await runWorker(cluster.fork(env(n)), ending);
      if (ending.aborted) return;
      earlyDeaths = performance.now() - startedMs < healthyMs ? earlyDeaths + 1 : 0;
      logger.error(
        { event: "worker.died", worker: n, reason },
        `worker ${n} ended with ${reason} and is started again`,
      );
      if (earlyDeaths === pausesMs.length) {
        failing.abort(new AppError("INTERNAL", `worker ${n} died ${earlyDeaths} times in a row; its log says why`));
      }
    }
  };
  await Promise.all(Array.from({ length: count }, (_, index) => keepAlive(index + 1)));
  failing.signal.throwIfAborted();
}

/** Resolves when the worker has ended, with its exit code or the signal that ended it. */
async function runWorker(worker: Worker, ending: AbortSignal): Promise<string> {
  const stop = () => worker.process.kill("SIGTERM");
  ending.addEventListener("abort", stop, { once: true });
  const [code, signal] = (await once(worker, "exit")) as [number | null, string | null];
  ending.removeEventListener("abort", stop);
  return signal ?? `exit code ${code}`;
}

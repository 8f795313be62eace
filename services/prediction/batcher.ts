/**
 * Dynamic batching: items that come one by one are run together, because a network takes little longer for several than for
 * one. Knows nothing of images and models.
 */
import { orAborted } from "../../lib/abort.ts";
import { AppError } from "../../lib/errors.ts";

/** What may be changed while it runs. */
export interface BatchSettings {
  /** Items in a batch at most, at least 1. */
  readonly maxBatchSize: number;
  /**
   * How long an item waits for others while a run could begin. 0 waits for nobody: batches then form of what has come in while the
   * batch before was running, which costs no time at all.
   */
  readonly maxDelayMs: number;
  /** Items that may wait or be prepared, at least 1; more are refused. */
  readonly maxQueueLength: number;
}

/** The order in which items are taken; within a priority, in the order in which they came. */
export const priorities = ["high", "normal", "low"] as const;
export type Priority = (typeof priorities)[number];

/** Why a batch began: it was full, its oldest item had waited long enough, or there was nothing to wait for. */
export type DispatchReason = "full" | "delay" | "idle";

export interface Dispatch {
  readonly size: number;
  readonly reason: DispatchReason;
  /** Of the item that has waited longest. */
  readonly waitedMs: number;
}

export interface BatcherOptions<Input, Output> {
  readonly settings: BatchSettings;
  /** Runs a batch: one output for each input, in their order. Batches run one after another. */
  run(inputs: readonly Input[]): Promise<readonly Output[]>;
  onDispatch?(dispatch: Dispatch): void;
}

export interface SubmitOptions {
  /** Ends the waiting: the item leaves the queue, or if it is being run, its output is dropped. Rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Default normal. */
  readonly priority?: Priority;
}

export interface Batched<Output> {
  readonly output: Output;
  /** From when the item was prepared to the beginning of its run. */
  readonly queuedMs: number;
  /** Items of the batch it was run in. */
  readonly batchSize: number;
}

export interface Batcher<Input, Output> {
  /**
   * Prepares an item and runs it in some batch. Rejects with QUEUE_FULL, at once and before anything is prepared, if too many wait; with what
   * `prepare` throws, or `run` for this very item, whatever becomes of the others in its batch.
   */
  submit(prepare: () => Promise<Input> | Input, options?: SubmitOptions): Promise<Batched<Output>>;
  /** What holds for every batch from now on. Setting what cannot be throws INVALID_REQUEST. */
  settings: BatchSettings;
  /** Items that wait or are being prepared. */
  readonly queueLength: number;
}

interface Item<Input, Output> {
  readonly input: Input;
  readonly signal: AbortSignal | undefined;
  readonly readyMs: number;
  resolve(result: Batched<Output>): void;
  reject(reason: unknown): void;
}

export function createBatcher<Input, Output>(options: BatcherOptions<Input, Output>): Batcher<Input, Output> {
  /** Sets keep their order and let go of an item anywhere in it. */
  const queues = priorities.map(() => new Set<Item<Input, Output>>());
  let settings = checkedSettings(options.settings);
  let running = false;
  let preparing = 0;
  let timer: NodeJS.Timeout | undefined;
  /** Of a batch, as a moving average: for how long a refused client should wait. */
  let typicalMs = 1;

  const waiting = (): number => queues.reduce((sum, { size }) => sum + size, 0);
  const queueLength = (): number => waiting() + preparing;

  function refusal(): AppError {
    const batches = Math.ceil(queueLength() / settings.maxBatchSize);
    return new AppError("QUEUE_FULL", `${queueLength()} requests wait already; send this one again later`, {
      details: { retryDelayMs: String(Math.max(10, Math.ceil(batches * typicalMs))) },
    });
  }

  /** Begins a batch if there is cause to, or sees to it that somebody asks again when there will be. */
  function dispatch(): void {
    if (running || waiting() === 0) return;
    clearTimeout(timer);
    const waitedMs = performance.now() - oldestMs(queues);
    const reason = reasonToRun(waitedMs);
    if (reason === undefined) {
      timer = setTimeout(dispatch, Math.ceil(settings.maxDelayMs - waitedMs));
      return;
    }
    const batch = take(queues, settings.maxBatchSize);
    if (batch.length === 0) return;
    options.onDispatch?.({ size: batch.length, reason, waitedMs });
    running = true;
    void runBatch(batch).finally(() => {
      running = false;
      dispatch();
    });
  }

  function reasonToRun(waitedMs: number): DispatchReason | undefined {
    if (waiting() >= settings.maxBatchSize) return "full";
    if (settings.maxDelayMs === 0) return "idle";
    return waitedMs >= settings.maxDelayMs ? "delay" : undefined;
  }

  async function runBatch(batch: readonly Item<Input, Output>[]): Promise<void> {
    const startedMs = performance.now();
    try {
      const outputs = await options.run(batch.map(({ input }) => input));
      if (outputs.length !== batch.length) {
        throw new AppError("INTERNAL", `a batch of ${batch.length} items had ${outputs.length} outputs`);
      }
      for (const [index, { readyMs, resolve }] of batch.entries()) {
        resolve({ output: outputs[index] as Output, queuedMs: startedMs - readyMs, batchSize: batch.length });
      }
      typicalMs += (performance.now() - startedMs - typicalMs) / 8;
    } catch (error) {
      if (batch.length === 1) batch[0]?.reject(error);
      // One item may have spoilt it for all: each that is still wanted gets its own run, and its own error.
      else for (const item of batch) if (!item.signal?.aborted) await runBatch([item]);
    }
  }

  /** Holds a place in the queue until it is done, wanted or not: what nobody waits for any more is work all the same. */
  function preparePlaced(prepare: () => Promise<Input> | Input): Promise<Input> | Input {
    const prepared = prepare();
    if (!(prepared instanceof Promise)) return prepared;
    preparing++;
    const done = () => {
      preparing--;
    };
    prepared.then(done, done);
    return prepared;
  }

  return {
    async submit(prepare, { signal, priority = "normal" } = {}) {
      signal?.throwIfAborted();
      if (queueLength() >= settings.maxQueueLength) throw refusal();
      // What needs no preparation waits for nothing.
      const prepared = preparePlaced(prepare);
      const input = prepared instanceof Promise ? await orGone(prepared, signal) : prepared;
      const queue = queues[priorities.indexOf(priority)];
      let leave = () => {};
      const batched = new Promise<Batched<Output>>((resolve, reject) => {
        const item = { input, signal, readyMs: performance.now(), resolve, reject };
        queue?.add(item);
        leave = () => queue?.delete(item);
      });
      dispatch();
      return orGone(batched, signal).finally(leave);
    },
    get settings() {
      return settings;
    },
    set settings(next) {
      settings = checkedSettings(next);
      dispatch();
    },
    get queueLength() {
      return queueLength();
    },
  };
}

function checkedSettings(settings: BatchSettings): BatchSettings {
  const { maxBatchSize, maxDelayMs, maxQueueLength } = settings;
  const check = (field: keyof BatchSettings, valid: boolean, must: string): void => {
    if (valid) return;
    throw new AppError("INVALID_REQUEST", `${field} is ${settings[field]}, but must be ${must}`, {
      details: { field },
    });
  };
  check("maxBatchSize", Number.isInteger(maxBatchSize) && maxBatchSize > 0, "a whole number from 1");
  check("maxDelayMs", Number.isFinite(maxDelayMs) && maxDelayMs >= 0, "a number from 0");
  check("maxQueueLength", Number.isInteger(maxQueueLength) && maxQueueLength > 0, "a whole number from 1");
  return settings;
}

function oldestMs<Input, Output>(queues: readonly ReadonlySet<Item<Input, Output>>[]): number {
  const heads = queues.map((queue) => queue.values().next().value?.readyMs ?? Number.POSITIVE_INFINITY);
  return Math.min(...heads);
}

/** The result, or the reason for which nobody waits for it any more. */
function orGone<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  return signal === undefined ? work : orAborted(work, signal);
}

/** Takes up to so many items out of the queues. Those that nobody waits for any more are let go. */
function take<Input, Output>(queues: readonly Set<Item<Input, Output>>[], count: number): Item<Input, Output>[] {
  const taken: Item<Input, Output>[] = [];
  for (const queue of queues) {
    for (const item of queue) {
      if (taken.length === count) return taken;
      queue.delete(item);
      if (!item.signal?.aborted) taken.push(item);
    }
  }
  return taken;
}

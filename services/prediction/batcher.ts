/**
 * Dynamic batching: items that come one by one are run together, because a network takes little longer for several than for one. An item
 * is admitted, waits, is prepared, and is run in a batch with others. Knows nothing of images and models.
 */
import { setMaxListeners } from "node:events";
import { onAbort } from "../../lib/abort.ts";
import { AppError } from "../../lib/errors.ts";
import { type AdmitOptions, createAdmission, type SubmitOptions } from "./admission.ts";
import { type BatchSettings, checkedSettings } from "./batch-settings.ts";
import { createPriorityQueue, type Priority, type Queueable } from "./priority-queue.ts";
import { createServiceTimes } from "./service-times.ts";

/** Why a batch began: it was full, its oldest item had waited long enough, or there was nothing to wait for. */
export type DispatchReason = "full" | "delay" | "idle";

export interface Dispatch {
  readonly size: number;
  readonly reason: DispatchReason;
  /** Of the item that came first, from when it came. */
  readonly waitedMs: number;
}

export interface RunResult<Output> {
  /** One for each input, in their order. */
  readonly outputs: readonly Output[];
  /** Of the run itself, without the waiting of the event loop for it. */
  readonly durationMs: number;
}

export interface BatcherOptions<Input, Output> {
  readonly settings: BatchSettings;
  /** Items that are prepared at a time, at most; those that take no time do not count. Default 8. */
  readonly maxPreparing?: number;
  /** Runs a batch. May be asked for the next one while one runs, and then has to run them one after another. */
  run(inputs: readonly Input[]): Promise<RunResult<Output>>;
  onDispatch?(dispatch: Dispatch): void;
}

/** Gives what is run, at once or later. */
export type Prepare<Input> = () => Promise<Input> | Input;

export interface Batched<Output> {
  readonly output: Output;
  /** From when the item came to the beginning of its run, without its preparation. */
  readonly queuedMs: number;
  /** How long its preparation took. */
  readonly preparedMs: number;
  /** Items of the batch it was run in. */
  readonly batchSize: number;
}

/** Places in the queue, held until items take them or this is disposed of. Items of several that still wait then leave the queue, and reject. */
export interface Places<Input, Output> extends Disposable {
  /**
   * Puts an item into the queue. It is prepared when its turn is near, and run in some batch. Rejects with what `prepare` throws, or `run` for
   * this very item, whatever becomes of the others in its batch. Throws INTERNAL when every place is taken.
   */
  submit(prepare: Prepare<Input>): Promise<Batched<Output>>;
}

export interface Batcher<Input, Output> {
  /** Throws QUEUE_FULL if the items would wait for too long or too many wait; see {@link BatchSettings}. Never if nothing is ahead. */
  admit(options?: AdmitOptions): Places<Input, Output>;
  /** Admits and submits one item. */
  submit(prepare: Prepare<Input>, options?: SubmitOptions): Promise<Batched<Output>>;
  /** What holds for every batch from now on. Setting what cannot be throws INVALID_REQUEST. */
  settings: BatchSettings;
  /** Places that are held, and items that wait or are being prepared. */
  readonly queueLength: number;
}

interface Item<Input, Output> extends Queueable {
  readonly prepare: Prepare<Input>;
  readonly cameMs: number;
  /** Nobody waits for it any more. */
  hasLeft: boolean;
  /** Undefined until it is prepared. */
  prepared?: { readonly input: Input; readonly tookMs: number; readonly atMs: number };
  resolve(result: Batched<Output>): void;
  reject(reason: unknown): void;
}

/** How an item enters the queue. */
interface Entrance {
  readonly signal: AbortSignal | undefined;
  readonly priority: Priority;
  /** 0 for one that is patient. */
  readonly weight: number;
  /** How those leave that came with it, and it itself. */
  readonly together: ((reason: unknown) => void)[] | undefined;
}

/**
 * A network that is quick would wait for the event loop between two batches. One whose batches take longer than this waits next to nothing, and whoever
 * has priority would wait for two of them.
 */
const quickRunMs = 20;

/** Nobody reads it: whoever waited has had an answer, or an error of another item. */
const requestOver = new AppError("CANCELLED", "the request of this item is over");

export function createBatcher<Input, Output>(options: BatcherOptions<Input, Output>): Batcher<Input, Output> {
  const { maxPreparing = 8 } = options;
  const admission = createAdmission();
  const times = createServiceTimes({ parallel: maxPreparing });
  const waiting = createPriorityQueue<Item<Input, Output>>();
  const ready = createPriorityQueue<Item<Input, Output>>();
  let settings = checkedSettings(options.settings);
  let held = 0;
  /** Items and places of those who are not patient. */
  let impatient = 0;
  let preparing = 0;
  /** Batches that run or will next, and their items. */
  let batches = 0;
  let running = 0;
  let timer: NodeJS.Timeout | undefined;

  const queueLength = (): number => held + waiting.size + preparing + ready.size;
  const ahead = (priority: Priority): number => waiting.ahead(priority) + preparing + ready.ahead(priority) + running;

  async function enqueue(
    prepare: Prepare<Input>,
    { signal, priority, weight, together }: Entrance,
  ): Promise<Batched<Output>> {
    signal?.throwIfAborted();
    impatient += weight;
    let stopListening = () => {};
    const answered = new Promise<Batched<Output>>((resolve, reject) => {
      const cameMs = performance.now();
      const item: Item<Input, Output> = { prepare, priority, cameMs, hasLeft: false, resolve, reject };
      const leave = (reason: unknown) => {
        item.hasLeft = true;
        waiting.delete(item);
        ready.delete(item);
        reject(reason);
      };
      if (signal !== undefined) {
        // The images of a stream share a signal, and each listens: that is no leak.
        setMaxListeners(0, signal);
        stopListening = onAbort(signal, () => leave(signal.reason));
      }
      together?.push(leave);
      waiting.add(item);
    });
    advance();
    return answered.finally(() => {
      impatient -= weight;
      stopListening();
    });
  }

  /** Does what can be done: prepares items, but not many more than the next batch takes, and begins that batch. */
  function advance(): void {
    prepareNext();
    dispatch();
    prepareNext();
  }

  function prepareNext(): void {
    for (let next = waiting.peek(); next !== undefined; next = waiting.peek()) {
      // Those of lower priority that are ready do not count: they will be run after it.
      if (preparing >= maxPreparing || ready.ahead(next.priority) >= settings.maxBatchSize) return;
      waiting.delete(next);
      prepare(next);
    }
  }

  function prepare(item: Item<Input, Output>): void {
    const startedMs = performance.now();
    const succeed = (input: Input): void => {
      const atMs = performance.now();
      item.prepared = { input, tookMs: atMs - startedMs, atMs };
      if (!item.hasLeft) ready.add(item);
    };
    try {
      const prepared = item.prepare();
      // What is there at once was the event loop's work, and is counted there.
      if (!(prepared instanceof Promise)) {
        succeed(prepared);
        return;
      }
      preparing++;
      const done = () => {
        preparing--;
        times.notePrepared(performance.now() - startedMs);
      };
      void prepared.finally(done).then(succeed, item.reject).then(advance);
    } catch (thrown) {
      item.reject(thrown);
    }
  }

  /** Whether a batch may be handed over. A full one may while another runs, since it gets no fuller by waiting. */
  function hasRoomForBatch(): boolean {
    if (batches === 0) return true;
    const { maxBatchSize } = settings;
    return batches === 1 && ready.size >= maxBatchSize && times.runMs(maxBatchSize) <= quickRunMs;
  }

  /** Begins a batch if there is cause to, or sees to it that somebody asks again when there will be. */
  function dispatch(): void {
    if (ready.size === 0 || !hasRoomForBatch()) return;
    clearTimeout(timer);
    const nowMs = performance.now();
    const readyForMs = nowMs - Math.min(...Array.from(ready, ({ prepared }) => prepared?.atMs ?? nowMs));
    const reason = reasonToRun(readyForMs);
    if (reason === undefined) {
      timer = setTimeout(advance, Math.ceil(settings.maxDelayMs - readyForMs));
      return;
    }
    const batch = ready.take(settings.maxBatchSize);
    const waitedMs = nowMs - Math.min(...batch.map(({ cameMs }) => cameMs));
    options.onDispatch?.({ size: batch.length, reason, waitedMs });
    batches++;
    running += batch.length;
    void runBatch(batch).finally(() => {
      batches--;
      running -= batch.length;
      advance();
    });
  }

  function reasonToRun(readyForMs: number): DispatchReason | undefined {
    if (ready.size >= settings.maxBatchSize) return "full";
    if (settings.maxDelayMs === 0) return "idle";
    return readyForMs >= settings.maxDelayMs ? "delay" : undefined;
  }

  async function runBatch(batch: readonly Item<Input, Output>[]): Promise<void> {
    const startedMs = performance.now();
    try {
      const { outputs, durationMs } = await options.run(batch.map(({ prepared }) => prepared?.input as Input));
      times.noteRun(batch.length, durationMs);
      admission.noteAnswers();
      if (outputs.length !== batch.length) {
        throw new AppError("INTERNAL", `a batch of ${batch.length} items had ${outputs.length} outputs`);
      }
      for (const [index, { cameMs, prepared, resolve }] of batch.entries()) {
        const preparedMs = prepared?.tookMs ?? 0;
        const queuedMs = startedMs - cameMs - preparedMs;
        resolve({ output: outputs[index] as Output, queuedMs, preparedMs, batchSize: batch.length });
      }
    } catch (error) {
      if (batch.length === 1) batch[0]?.reject(error);
      // One item may have spoilt it for all: each that is still wanted gets its own run, and its own error.
      else for (const item of batch) if (!item.hasLeft) await runBatch([item]);
    }
  }

  function admit(admitOptions: AdmitOptions = {}): Places<Input, Output> {
    const { count = 1, timeoutMs = Number.POSITIVE_INFINITY, isPatient = false, priority = "normal" } = admitOptions;
    const before = ahead(priority);
    const all = ahead("low");
    const crowd = {
      queueLength: queueLength(),
      ahead: before,
      aheadInQueue: before - running,
      waitMs: times.waitMs(before),
      impatientMs: times.waitMs(Math.min(all, impatient)),
    };
    if (all === 0) times.noteBegin();
    admission.check({ count, timeoutMs, isPatient }, crowd, settings);
    let unused = count;
    // One alone is over when its request is.
    const together: Entrance["together"] = count > 1 ? [] : undefined;
    const weight = isPatient ? 0 : 1;
    held += count;
    impatient += weight * count;
    const letGo = (places: number) => {
      unused -= places;
      held -= places;
      impatient -= weight * places;
    };
    return {
      submit(prepare) {
        if (unused === 0) throw new AppError("INTERNAL", `more items were submitted than the ${count} admitted`);
        letGo(1);
        return enqueue(prepare, { signal: admitOptions.signal, priority, weight, together });
      },
      [Symbol.dispose]() {
        letGo(unused);
        for (const leave of together ?? []) leave(requestOver);
      },
    };
  }

  return {
    admit,
    async submit(prepare, submitOptions) {
      return admit(submitOptions).submit(prepare);
    },
    get settings() {
      return settings;
    },
    set settings(next) {
      settings = checkedSettings(next);
      advance();
    },
    get queueLength() {
      return queueLength();
    },
  };
}

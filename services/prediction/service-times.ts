/**
 * How long a server of several parts takes for what is ahead. It is as fast as its busiest part: the event loop, which reads, answers and
 * refuses; those who prepare, several at a time; and the one who runs batches. For each, the time that it was busy over what it did says what
 * an item costs it, however much or little there is to do. Time from coming to going would not: with little to do it is the length of the way.
 */

export interface ServiceTimes {
  /** Milliseconds until so many items will have gone through; 0 as long as nothing is known. */
  waitMs(items: number): number;
  /** Milliseconds that a batch of so many items runs; Infinity as long as too little is known. */
  runMs(items: number): number;
  /** An item has come, and there was none before. */
  noteBegin(): void;
  notePrepared(tookMs: number): void;
  /** A batch was run. */
  noteRun(count: number, tookMs: number): void;
}

export interface ServiceTimesOptions {
  /** Items that are prepared at a time. */
  readonly parallel: number;
  /** Milliseconds for which the event loop has been busy so far. Default: as Node counts them. */
  readonly loopBusyMs?: () => number;
}

/** Items over which a time is averaged, about. */
const memory = 64;
/** Items after which an average is near what it is of. */
const trusted = 3 * memory;

export function createServiceTimes({ parallel, loopBusyMs = nodeBusyMs }: ServiceTimesOptions): ServiceTimes {
  const loop = createAverage();
  const preparation = createAverage();
  const run = createAverage();
  let busySinceMs = 0;
  return {
    waitMs(items) {
      // Who finds somebody free to prepare it waits for nobody. Nor for the loop: its time has refusals in it, so to let in fewer than can be
      // prepared would be to refuse more, to see it slower, and to let in fewer still.
      const queued = Math.max(0, items - parallel + 1);
      return Math.max(queued * loop.value, items * run.value, (queued / parallel) * preparation.value);
    },
    runMs: (items) => (run.items < trusted ? Number.POSITIVE_INFINITY : items * run.value),
    noteBegin() {
      // What the loop did while there was no item was something else.
      busySinceMs = loopBusyMs();
    },
    notePrepared: (tookMs) => preparation.add(1, tookMs),
    noteRun(count, tookMs) {
      run.add(count, tookMs);
      const busyMs = loopBusyMs();
      loop.add(count, busyMs - busySinceMs);
      busySinceMs = busyMs;
    },
  };
}

function nodeBusyMs(): number {
  return performance.eventLoopUtilization().active;
}

/** More than so many times the usual is the machine standing still, not what an item takes; if it stays so, it soon is the usual. */
const outlier = 4;

/** A moving average. It begins at 0 and so believes what it sees only by and by: the first times of a process are long. */
function createAverage() {
  let value = 0;
  let seen = 0;
  return {
    get value() {
      return value;
    },
    /** Of which it is the average. */
    get items() {
      return seen;
    },
    add(items: number, totalMs: number) {
      if (items === 0) return;
      seen += items;
      const usualMs = items * value;
      const countedMs = value === 0 ? totalMs : Math.min(totalMs, outlier * usualMs);
      value += (countedMs - usualMs) / (items + memory);
    },
  };
}

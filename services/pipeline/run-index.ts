import type { Run } from "../../gen/millrace/v1/pipeline_pb.ts";
import { orAborted } from "../../lib/abort.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import { followEvents } from "../../lib/bus/follow.ts";
import { eventStream, streamSubjects } from "../../lib/bus/subjects.ts";
import { AppError } from "../../lib/errors.ts";
import { applyRunEvent, emptyRun, runEventFrom } from "./run-projection.ts";

/** All runs, as the event stream tells them. It holds nothing that replaying the stream would not give back. */
export interface RunIndex extends AsyncDisposable {
  get(runId: string): Run | undefined;
  /** Newest first. */
  list(): Run[];
  /** Resolves when this event is part of the index. DEADLINE_EXCEEDED, which names the run, after 5 s. */
  reached(stored: StoredEvent, signal: AbortSignal): Promise<void>;
  /** Resolves when all that the stream held at the start is part of the index. */
  readonly ready: Promise<void>;
}

/** An event of a run. */
export interface StoredEvent {
  readonly runId: string;
  /** Its position in the stream. */
  readonly sequence: number;
}

const reachedTimeoutMs = 5_000;

/** Starts to follow the stream. */
export function openRunIndex(bus: Bus): RunIndex {
  const stopping = new AbortController();
  const runs = new Map<string, Run>();
  const waiting = new Set<Waiter>();
  let position = 0;
  let ready = () => {};
  const whenReady = new Promise<void>((resolve) => {
    ready = resolve;
  });
  const following = followEvents(bus, {
    stream: eventStream,
    filter: streamSubjects[eventStream],
    signal: stopping.signal,
    onCaughtUp: () => ready(),
    onRestart: () => {
      runs.clear();
      position = 0;
    },
    onEvent: (event) => {
      const runEvent = runEventFrom(event);
      const runId = event.correlationId;
      if (runEvent !== undefined && runId !== "") {
        runs.set(runId, applyRunEvent(runs.get(runId) ?? emptyRun(runId), runEvent, event));
      }
      position = event.sequence;
      for (const waiter of waiting) if (waiter.sequence <= position) waiter.resolve();
    },
  });
  return {
    get: (runId) => runs.get(runId),
    list: () => [...runs.values()].sort(byNewest),
    reached: async (stored, signal) => {
      if (position < stored.sequence) await waitFor(stored, waiting, signal);
    },
    ready: whenReady,
    [Symbol.asyncDispose]: async () => {
      stopping.abort();
      await following;
    },
  };
}

function byNewest(a: Run, b: Run): number {
  return (
    Number((b.requestedAt?.seconds ?? 0n) - (a.requestedAt?.seconds ?? 0n)) ||
    (b.requestedAt?.nanos ?? 0) - (a.requestedAt?.nanos ?? 0)
  );
}

interface Waiter {
  readonly sequence: number;
  resolve: () => void;
}

async function waitFor({ runId, sequence }: StoredEvent, waiting: Set<Waiter>, signal: AbortSignal): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const waiter: Waiter = { sequence, resolve: () => {} };
  const arrived = new Promise<void>((resolve, reject) => {
    waiter.resolve = resolve;
    waiting.add(waiter);
    // It is stored: who asks again without the id would have a second run.
    const message = `event ${sequence} of run ${runId} was stored but has not come back within ${reachedTimeoutMs} ms; ask again with this run's id`;
    const late = new AppError("DEADLINE_EXCEEDED", message, { details: { runId } });
    timer = setTimeout(() => reject(late), reachedTimeoutMs);
  });
  try {
    await orAborted(arrived, signal);
  } finally {
    clearTimeout(timer);
    waiting.delete(waiter);
  }
}

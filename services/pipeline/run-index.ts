import type { Run } from "../../gen/millrace/v1/pipeline_pb.ts";
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
  /** Resolves when the event at this position of the stream is part of the index. DEADLINE_EXCEEDED after 5 s. */
  reached(sequence: number): Promise<void>;
  /** Resolves when all that the stream held at the start is part of the index. */
  readonly ready: Promise<void>;
}

const reachedTimeoutMs = 5_000;

/** Starts to follow the stream. */
export function openRunIndex(bus: Bus): RunIndex {
  const stopping = new AbortController();
  const runs = new Map<string, Run>();
  const waiting = new Set<{ readonly sequence: number; readonly resolve: () => void }>();
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
    reached: (sequence) => reached(sequence, () => position, waiting),
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

async function reached(
  sequence: number,
  position: () => number,
  waiting: Set<{ readonly sequence: number; readonly resolve: () => void }>,
): Promise<void> {
  if (position() >= sequence) return;
  let timer: NodeJS.Timeout | undefined;
  const waiter = { sequence, resolve: () => {} };
  try {
    await new Promise<void>((resolve, reject) => {
      waiter.resolve = resolve;
      waiting.add(waiter);
      const message = `event ${sequence} was stored but has not come back within ${reachedTimeoutMs} ms; ask again`;
      timer = setTimeout(() => reject(new AppError("DEADLINE_EXCEEDED", message)), reachedTimeoutMs);
    });
  } finally {
    clearTimeout(timer);
    waiting.delete(waiter);
  }
}

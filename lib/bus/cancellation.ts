import { AppError } from "../errors.ts";
import type { Bus } from "./bus.ts";
import { eventStream, eventSubject } from "./subjects.ts";

export interface Cancellation extends AsyncDisposable {
  /** Aborts with CANCELLED once the run's cancellation is published. */
  readonly signal: AbortSignal;
}

const pollIntervalMs = 5_000;

/**
 * Watches for the cancellation of a run. A plain subscription hears it at once; the stream is asked now and every few
 * seconds as well, for a cancellation that came before, or while the connection was down.
 */
export async function watchCancellation(bus: Bus, runId: string): Promise<Cancellation> {
  const subject = eventSubject(runId, "run.cancelled");
  const controller = new AbortController();
  const cancel = () =>
    controller.abort(new AppError("CANCELLED", `run ${runId} was cancelled`, { details: { runId } }));
  const ask = async () => {
    if ((await bus.jsm.streams.getMessage(eventStream, { last_by_subj: subject })) !== null) cancel();
  };
  const subscription = bus.nc.subscribe(subject, { callback: cancel });
  // A failed question is no answer: the next one follows, and the subscription still listens.
  const poll = setInterval(() => void ask().catch(() => undefined), pollIntervalMs);
  await ask();
  return {
    signal: controller.signal,
    [Symbol.asyncDispose]: async () => {
      clearInterval(poll);
      subscription.unsubscribe();
    },
  };
}

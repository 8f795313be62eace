import { AppError } from "../errors.ts";
import type { Insistence } from "./asking.ts";
import type { Bus } from "./bus.ts";
import { eventStream, eventSubject } from "./subjects.ts";

/** Watches until it is disposed of. */
export interface Cancellation extends Disposable {
  /** Aborts with CANCELLED once the run's cancellation is published. */
  readonly signal: AbortSignal;
}

const pollIntervalMs = 5_000;

/**
 * Watches for the cancellation of a run. A plain subscription hears it at once; the stream is asked now, after each
 * reconnection and every few seconds as well, for a cancellation that came before or while nobody could hear it.
 * Rejects if the first question cannot be answered.
 */
export async function watchCancellation(bus: Bus, runId: string, options: Insistence = {}): Promise<Cancellation> {
  const subject = eventSubject(runId, "run.cancelled");
  const controller = new AbortController();
  let ended = false;
  const cancel = () => {
    if (!ended) controller.abort(new AppError("CANCELLED", `run ${runId} was cancelled`, { details: { runId } }));
  };
  const find = async () => {
    if ((await bus.jsm.streams.getMessage(eventStream, { last_by_subj: subject })) !== null) cancel();
  };
  // A failed question is no answer: the next one follows, and the subscription still listens.
  const look = () => void find().catch(() => undefined);
  const subscription = bus.nc.subscribe(subject, {
    // A subscription that is refused is not a cancellation; the stream is still asked.
    callback: (error) => (error === null ? cancel() : undefined),
  });
  const poll = setInterval(look, pollIntervalMs);
  const forget = bus.connection.onReconnect(look);
  const end = () => {
    ended = true;
    clearInterval(poll);
    forget();
    subscription.unsubscribe();
  };
  try {
    await bus.ask(find, { failure: `whether run ${runId} is cancelled could not be read`, ...options });
  } catch (thrown) {
    end();
    throw thrown;
  }
  return { signal: controller.signal, [Symbol.dispose]: end };
}

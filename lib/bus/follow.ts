import { setTimeout as delay } from "node:timers/promises";
import { DeliverPolicy } from "@nats-io/jetstream";
import { AppError } from "../errors.ts";
import type { Bus } from "./bus.ts";
import { eventFromMessage, type ReceivedEvent } from "./cloud-event.ts";

export interface FollowOptions {
  /** Stream to read. */
  readonly stream: string;
  /** Subject, which may have wildcards. */
  readonly filter: string;
  /** Called for each event, in the stream's order; the next waits for it. */
  readonly onEvent: (event: ReceivedEvent) => void | Promise<void>;
  /** Called once, when all that was stored at the start has been handed over. */
  readonly onCaughtUp?: () => void;
  /** Ends the following. */
  readonly signal: AbortSignal;
}

const pauseAfterFailureMs = 500;

/**
 * Reads a stream from its beginning and goes on with what comes. Each event is handed over once and in order, across
 * reconnections and restarts of the server: the position is kept here, not by the server. Resolves when aborted.
 *
 * Unreadable messages are logged and passed over: whoever follows shows what is there, and must not stop at one.
 */
export async function followEvents(bus: Bus, options: FollowOptions): Promise<void> {
  const position = { next: 1, target: undefined as number | undefined };
  while (!options.signal.aborted) {
    try {
      position.target ??= await lastSequence(bus, options);
      reportCaughtUp(position, options);
      if (!options.signal.aborted) await readFrom(bus, options, position);
    } catch (thrown) {
      if (options.signal.aborted || bus.nc.isClosed()) return;
      const error = AppError.from(thrown);
      bus.logger.warn(
        { event: "follow.interrupted", stream: options.stream, error },
        "following a stream was interrupted; going on",
      );
    }
    if (options.signal.aborted) return;
    await delay(pauseAfterFailureMs, undefined, { signal: options.signal }).catch(() => undefined);
  }
}

interface Position {
  /** Sequence from which to read on. */
  next: number;
  /** Last sequence that was stored at the start; undefined before it is known, Infinity once caught up. */
  target: number | undefined;
}

async function lastSequence(bus: Bus, { stream, filter }: FollowOptions): Promise<number> {
  return (await bus.jsm.streams.getMessage(stream, { last_by_subj: filter }))?.seq ?? 0;
}

function reportCaughtUp(position: Position, { onCaughtUp }: FollowOptions): void {
  if (position.target !== undefined && position.next > position.target) {
    position.target = Number.POSITIVE_INFINITY;
    onCaughtUp?.();
  }
}

async function readFrom(bus: Bus, options: FollowOptions, position: Position): Promise<void> {
  const consumer = await bus.js.consumers.get(options.stream, {
    filter_subjects: options.filter,
    deliver_policy: DeliverPolicy.StartSequence,
    opt_start_seq: position.next,
  });
  const messages = await consumer.consume({ abort_on_missing_resource: true });
  const stop = () => void messages.close();
  options.signal.addEventListener("abort", stop, { once: true });
  try {
    for await (const message of messages) {
      if (options.signal.aborted) return;
      const event = readable(bus, message);
      if (event !== undefined) await options.onEvent(event);
      position.next = message.seq + 1;
      reportCaughtUp(position, options);
    }
  } finally {
    options.signal.removeEventListener("abort", stop);
    await messages.close();
  }
}

function readable(bus: Bus, message: Parameters<typeof eventFromMessage>[0]): ReceivedEvent | undefined {
  try {
    return eventFromMessage(message);
  } catch (thrown) {
    bus.logger.warn(
      { event: "follow.unreadable", subject: message.subject, error: thrown },
      "a message that is no event was passed over",
    );
    return undefined;
  }
}

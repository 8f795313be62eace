import { setTimeout as delay } from "node:timers/promises";
import { type Consumer, type ConsumerMessages, DeliverPolicy } from "@nats-io/jetstream";
import type { Bus } from "./bus.ts";
import { eventFromMessage, type ReceivedEvent, type StreamMessage } from "./cloud-event.ts";

export interface FollowOptions {
  /** Stream to read. */
  readonly stream: string;
  /** Subject, which may have wildcards. */
  readonly filter: string;
  /** Called for each event, in the stream's order; the next waits for it. If it throws, it is called again with the same event. */
  readonly onEvent: (event: ReceivedEvent) => void | Promise<void>;
  /** Called once, when all that was stored at the start has been handed over. */
  readonly onCaughtUp?: () => void;
  /** Called when the stream was made anew, before its events are handed over from the first on: what the old one told holds no more. */
  readonly onRestart?: () => void;
  /** Ends the following. */
  readonly signal: AbortSignal;
}

const pauseAfterFailureMs = 500;

/**
 * Reads a stream from its beginning and goes on with what comes. Each event is handed over once and in order, across
 * reconnections and restarts of the server: the position is kept here, not by the server. Resolves when aborted, or
 * when the bus is closed.
 *
 * Unreadable messages are logged and passed over: whoever follows shows what is there, and must not stop at one.
 */
export async function followEvents(bus: Bus, options: FollowOptions): Promise<void> {
  const { stream, signal } = options;
  const position: Position = { next: 1, target: undefined, created: undefined };
  while (!signal.aborted && !bus.nc.isClosed()) {
    try {
      await findPosition(bus, options, position);
      reportCaughtUp(position, options);
      await readFrom(bus, options, position);
    } catch (error) {
      if (signal.aborted || bus.nc.isClosed()) return;
      bus.logger.warn({ event: "follow.interrupted", stream, error }, "following a stream was interrupted; going on");
    }
    await delay(pauseAfterFailureMs, undefined, { signal }).catch(() => undefined);
  }
}

interface Position {
  /** Sequence from which to read on. */
  next: number;
  /** Last sequence that was stored at the start; undefined before it is known, `caughtUp` once that is told. */
  target: number | undefined;
  /** When the stream was made, by which one that has been made anew is known; undefined before it is known. */
  created: string | undefined;
}

const caughtUp = Number.POSITIVE_INFINITY;

async function findPosition(bus: Bus, followed: FollowOptions, position: Position): Promise<void> {
  const { stream, filter, signal, onRestart } = followed;
  const options = { failure: `stream ${stream} could not be read`, signal };
  const { state, created } = await bus.ask(() => bus.jsm.streams.info(stream), options);
  const remade = position.created !== undefined && position.created !== created;
  // A store that was put back from a copy is the same stream, and shorter.
  if (remade || state.last_seq + 1 < position.next) {
    bus.logger.warn({ event: "follow.restarted", stream }, "the stream was made anew; reading it from its beginning");
    position.next = 1;
    if (position.target !== caughtUp) position.target = undefined;
    onRestart?.();
  }
  position.created = created;
  const last = () => bus.jsm.streams.getMessage(stream, { last_by_subj: filter });
  position.target ??= (await bus.ask(last, options))?.seq ?? 0;
}

function reportCaughtUp(position: Position, { onCaughtUp }: FollowOptions): void {
  if (position.target !== undefined && position.next > position.target) {
    position.target = caughtUp;
    onCaughtUp?.();
  }
}

async function readFrom(bus: Bus, options: FollowOptions, position: Position): Promise<void> {
  const { signal } = options;
  if (signal.aborted) return;
  const consumer = await createConsumer(bus, options, position);
  let messages: ConsumerMessages | undefined;
  const stop = () => void messages?.close();
  signal.addEventListener("abort", stop, { once: true });
  try {
    messages = await consumer.consume({ abort_on_missing_resource: true });
    for await (const message of messages) {
      if (signal.aborted) return;
      const event = readable(bus, message);
      if (event !== undefined) await options.onEvent(event);
      position.next = message.seq + 1;
      reportCaughtUp(position, options);
    }
  } finally {
    signal.removeEventListener("abort", stop);
    await messages?.close();
    remove(consumer);
  }
}

async function createConsumer(bus: Bus, { stream, filter, signal }: FollowOptions, position: Position) {
  let created: Promise<Consumer> | undefined;
  const create = () => {
    created = bus.js.consumers.get(stream, {
      filter_subjects: filter,
      deliver_policy: DeliverPolicy.StartSequence,
      opt_start_seq: position.next,
    });
    return created;
  };
  try {
    // Tried once: while a further try waited, the stream could be made anew, and the position would be one of the old one.
    return await bus.ask(create, { failure: `stream ${stream} could not be followed`, timeoutMs: 0, signal });
  } catch (thrown) {
    created?.then(remove, () => undefined);
    throw thrown;
  }
}

/** The server would keep an unused consumer for minutes. If it cannot be told, it forgets by itself. */
function remove(consumer: Consumer): void {
  consumer.delete().catch(() => undefined);
}

function readable(bus: Bus, message: StreamMessage): ReceivedEvent | undefined {
  try {
    return eventFromMessage(message);
  } catch (error) {
    bus.logger.warn(
      { event: "follow.unreadable", subject: message.subject, error },
      "a message that is no event was passed over",
    );
    return undefined;
  }
}

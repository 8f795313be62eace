import { setTimeout as delay } from "node:timers/promises";
import { create, type DescMessage, type Message, type MessageShape } from "@bufbuild/protobuf";
import { AckPolicy, type Consumer, DeliverPolicy, type JsMsg } from "@nats-io/jetstream";
import { nanos } from "@nats-io/nats-core";
import { RunFailedSchema } from "../../gen/millrace/v1/events_pb.ts";
import { AppError } from "../errors.ts";
import type { Logger } from "../log.ts";
import type { Bus, Published } from "./bus.ts";
import { watchCancellation } from "./cancellation.ts";
import { eventFromMessage, type ReceivedEvent } from "./cloud-event.ts";
import { storeDeadLetter } from "./dead-letters.ts";
import { eventTypeOf } from "./event-types.ts";
import { eventStream, eventSubject } from "./subjects.ts";
import { withProcessSpan } from "./tracing.ts";

/** A step of the pipeline: it consumes one kind of event, does its work, and publishes what came of it. */
export interface Stage<Input extends DescMessage = DescMessage> {
  /** Name of its durable consumer. Instances with the same name share the work. */
  readonly name: string;
  /** The event that it waits for. */
  readonly consumes: Input;
  /** The events with which its work on a message can end. One of them in the stream means that the work is done. */
  readonly outcomes: readonly DescMessage[];
  /** Does the work and returns the outcome, which the bus publishes before it acknowledges the message. */
  readonly handle: (event: ReceivedEvent<MessageShape<Input>>, context: StageContext) => Promise<Message>;
  /** How long the broker waits for a sign of life before it gives the message to another instance, in milliseconds. Signs are sent at a third of it. Default: 30,000. */
  readonly ackWaitMs?: number;
  /** Tries before a message becomes a dead letter. Default: 5. */
  readonly maxAttempts?: number;
  /** Pause before each further try, in milliseconds; the last one repeats. Default: 0.5, 2, 8 and 30 s. */
  readonly retryDelaysMs?: readonly number[];
}

/** What a handler is given beside the event. */
export interface StageContext {
  readonly runId: string;
  /** Which try this is, from 1. */
  readonly attempt: number;
  /** Aborts when the run is cancelled (CANCELLED) or the service stops (SHUTTING_DOWN). */
  readonly signal: AbortSignal;
  readonly logger: Logger;
  /** Publishes an event on the way, caused by the one being handled. `key` tells several of a kind apart. */
  publish(message: Message, key?: string): Promise<Published>;
}

/** A stage at work. */
export interface RunningStage {
  /** Whether messages are being asked for: false while the broker cannot be reached. */
  readonly consuming: () => boolean;
  /** Takes no further message, stops the one in hand, gives it back, and resolves when all is settled. */
  stop(): Promise<void>;
}

const defaults = { ackWaitMs: 30_000, maxAttempts: 5, retryDelaysMs: [500, 2_000, 8_000, 30_000] };
/** The shortest that a server holds a pull open for. Also the longest that stopping an idle stage takes. */
const pullExpiresMs = 1_000;

/** Starts a stage. It goes on, whatever happens to the broker, until it is stopped. */
export function startStage(bus: Bus, stage: Stage): RunningStage {
  const stopping = new AbortController();
  const state = { consuming: false };
  const done = superviseConsumer(bus, stage, stopping.signal, state);
  return {
    consuming: () => state.consuming,
    stop: async () => {
      stopping.abort(
        new AppError("SHUTTING_DOWN", `service ${bus.service} is stopping; the message goes to another instance`),
      );
      await done;
    },
  };
}

async function superviseConsumer(
  bus: Bus,
  stage: Stage,
  stopping: AbortSignal,
  state: { consuming: boolean },
): Promise<void> {
  while (!stopping.aborted && !bus.nc.isClosed()) {
    try {
      const consumer = await ensureConsumer(bus, stage);
      while (!stopping.aborted) {
        const message = await consumer.next({ expires: pullExpiresMs });
        state.consuming = true;
        if (message !== null) await handleMessage(bus, stage, message, stopping);
      }
    } catch (thrown) {
      state.consuming = false;
      bus.logger.warn(
        { event: "stage.interrupted", stage: stage.name, error: thrown },
        "consuming was interrupted; going on",
      );
      await delay(500, undefined, { signal: stopping }).catch(() => undefined);
    }
  }
  state.consuming = false;
}

async function ensureConsumer(bus: Bus, stage: Stage): Promise<Consumer> {
  const config = {
    durable_name: stage.name,
    ack_policy: AckPolicy.Explicit,
    deliver_policy: DeliverPolicy.All,
    filter_subject: eventSubject("*", eventTypeOf(stage.consumes).options.name),
    ack_wait: nanos(stage.ackWaitMs ?? defaults.ackWaitMs),
    // Tries are counted by the stage, which can keep the message as a dead letter; the server would only drop it.
    max_deliver: -1,
  };
  const existing = await bus.jsm.consumers.info(eventStream, stage.name).catch(() => undefined);
  if (existing === undefined) await bus.jsm.consumers.add(eventStream, config);
  else if (existing.config.ack_wait !== config.ack_wait || existing.config.filter_subject !== config.filter_subject) {
    await bus.jsm.consumers.update(eventStream, stage.name, config);
  }
  return bus.js.consumers.get(eventStream, stage.name);
}

async function handleMessage(bus: Bus, stage: Stage, message: JsMsg, stopping: AbortSignal): Promise<void> {
  const heartbeat = setInterval(() => message.working(), (stage.ackWaitMs ?? defaults.ackWaitMs) / 3);
  try {
    const event = eventFromMessage(message);
    const template = eventSubject("{run}", eventTypeOf(stage.consumes).options.name);
    await withProcessSpan({ event, stage: stage.name, template, attempt: message.info.deliveryCount }, () =>
      handleEvent(bus, stage, event, message, stopping),
    );
    // Confirmed, so that the message does not come back; it may all the same, and then its outcome is found.
    await message.ackAck();
  } catch (thrown) {
    await settleFailure(bus, stage, message, AppError.from(thrown));
  } finally {
    clearInterval(heartbeat);
  }
}

async function handleEvent(
  bus: Bus,
  stage: Stage,
  event: ReceivedEvent,
  message: JsMsg,
  stopping: AbortSignal,
): Promise<void> {
  const runId = event.correlationId;
  const attempt = message.info.deliveryCount;
  const logger = bus.logger.child({ stage: stage.name, attempt });
  const maxAttempts = stage.maxAttempts ?? defaults.maxAttempts;
  if (await outcomeExists(bus, stage, event)) {
    logger.info({ event: "stage.already_done" }, "this message was handled before; nothing to do");
    return;
  }
  if (attempt > maxAttempts) {
    throw new AppError(
      "INTERNAL",
      `stage ${stage.name} did not survive ${maxAttempts} tries of run ${runId}; look for crashes in its log`,
      { retryable: false },
    );
  }
  await using cancellation = await watchCancellation(bus, runId);
  const signal = AbortSignal.any([stopping, cancellation.signal]);
  signal.throwIfAborted();
  const publish = (outcome: Message, key?: string) =>
    bus.publish(outcome, { runId, cause: event, signal: stopping, ...(key === undefined ? {} : { key }) });
  logger.info({ event: "stage.started" }, `${stage.name} begins`);
  const outcome = await stage.handle(event as ReceivedEvent<MessageShape<DescMessage>>, {
    runId,
    attempt,
    signal,
    logger,
    publish,
  });
  await publish(outcome);
  logger.info({ event: "stage.finished", outcome: outcome.$typeName }, `${stage.name} is done`);
}

/**
 * Whether an earlier delivery of this message got to its end. The stream itself is asked, since the broker forgets
 * message ids after its duplicate window.
 */
async function outcomeExists(bus: Bus, stage: Stage, event: ReceivedEvent): Promise<boolean> {
  for (const schema of stage.outcomes) {
    const subject = eventSubject(event.correlationId, eventTypeOf(schema).options.name);
    if ((await bus.lastEvent(eventStream, subject))?.causationId === event.id) return true;
  }
  return false;
}

async function settleFailure(bus: Bus, stage: Stage, message: JsMsg, error: AppError): Promise<void> {
  const attempt = message.info.deliveryCount;
  const logger = bus.logger.child({ stage: stage.name, attempt, subject: message.subject });
  if (error.code === "SHUTTING_DOWN") {
    message.nak();
    await bus.nc.flush();
  } else if (error.code === "CANCELLED") {
    logger.info({ event: "stage.cancelled" }, error.message);
    await message.ackAck();
  } else if (error.retryable && attempt < (stage.maxAttempts ?? defaults.maxAttempts)) {
    const delays = stage.retryDelaysMs ?? defaults.retryDelaysMs;
    const pauseMs = delays[Math.min(attempt, delays.length) - 1] ?? 1_000;
    logger.warn({ event: "stage.retry", error, pauseMs }, `try ${attempt} failed; the next follows in ${pauseMs} ms`);
    message.nak(pauseMs);
  } else {
    await giveUp(bus, stage, message, error);
  }
}

/** Keeps the message as a dead letter, tells the run, and only then lets go of the message. */
async function giveUp(bus: Bus, stage: Stage, message: JsMsg, error: AppError): Promise<void> {
  const attempts = message.info.deliveryCount;
  const deadLetterSequence = BigInt(await storeDeadLetter(bus, stage.name, message, error));
  bus.logger.error(
    { event: "stage.dead_letter", stage: stage.name, subject: message.subject, attempts, error },
    error.message,
  );
  const event = readEvent(message);
  if (event !== undefined) {
    const failure = { stage: stage.name, code: error.code, message: error.message, attempts, deadLetterSequence };
    await bus.publish(create(RunFailedSchema, failure), { runId: event.correlationId, cause: event });
  }
  message.term();
  await bus.nc.flush();
}

function readEvent(message: JsMsg): ReceivedEvent | undefined {
  try {
    return eventFromMessage(message);
  } catch {
    // The dead letter keeps the unreadable message; without its attributes there is no run to tell.
    return undefined;
  }
}

import { setTimeout as delay } from "node:timers/promises";
import type { DescMessage, Message, MessageShape } from "@bufbuild/protobuf";
import { AckPolicy, type Consumer, DeliverPolicy, JetStreamApiCodes, type JsMsg } from "@nats-io/jetstream";
import { nanos } from "@nats-io/nats-core";
import { orAborted } from "../abort.ts";
import { AppError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { isApiError } from "./broker-errors.ts";
import type { Bus, Published } from "./bus.ts";
import type { ReceivedEvent } from "./cloud-event.ts";
import { handleMessage, type Session, stageDefaults } from "./delivery.ts";
import { eventTypeOf } from "./event-types.ts";
import { createFailedTries } from "./failed-tries.ts";
import { observeConsumer } from "./metrics.ts";
import { eventStream, eventSubject, requireToken } from "./subjects.ts";

/** A step of the pipeline: it consumes one kind of event, does its work, and publishes what came of it. */
export interface Stage<Input extends DescMessage = DescMessage> {
  /** Name of its durable consumer. Instances with the same name share the work. */
  readonly name: string;
  /** The event that it waits for, once a run. */
  readonly consumes: Input;
  /** The events with which its work on a message can end. One of them in the stream means that the work is done. */
  readonly outcomes: readonly DescMessage[];
  /** Does the work and returns the outcome, which the bus publishes before it acknowledges the message. */
  readonly handle: (event: ReceivedEvent<MessageShape<Input>>, context: StageContext) => Promise<Message>;
  /** How long the broker waits for a sign of life before it gives the message to another instance, in milliseconds. Signs are sent at a third of it. Default: 30,000. */
  readonly ackWaitMs?: number;
  /** Tries before a message becomes a dead letter. A message that a stopping or dying instance gave back counts as tried. Default: 5. */
  readonly maxAttempts?: number;
  /** Pause before each further try, in milliseconds; the last one repeats. Default: 0.5, 2, 8 and 30 s. */
  readonly retryDelaysMs?: readonly number[];
  /** How long a handler may go on after its signal aborted because the service stops, in milliseconds; then the message is given back without it. Default: 5,000. */
  readonly stopGraceMs?: number;
}

/** What a handler is given beside the event. */
export interface StageContext {
  readonly runId: string;
  /** Which try this is, from 1. */
  readonly attempt: number;
  /** Aborts when the run is cancelled (CANCELLED) or the service stops (SHUTTING_DOWN). */
  readonly signal: AbortSignal;
  readonly logger: Logger;
  /**
   * Publishes an event on the way, caused by the one being handled. `key` tells several of a kind apart. Waits for the broker without end;
   * rejects once the run is cancelled, the try has ended, or a stopping service waits no longer: what is finished is still stored while it stops.
   */
  publish(message: Message, key?: string): Promise<Published>;
  /**
   * Says that what the handler does next cannot be taken back: from here on a cancellation comes too late, and the outcome is published in
   * spite of it. Throws if the run has been cancelled.
   */
  commit(): void;
}

/** A stage at work. */
export interface RunningStage {
  /** Whether messages are being asked for: false while the broker cannot be reached. */
  readonly consuming: () => boolean;
  /** Takes no further message, stops the one in hand, gives it back, and resolves when all is settled. */
  stop(): Promise<void>;
}

/** The shortest that a server holds a pull open for. Also the longest that stopping an idle stage takes. */
const pullExpiresMs = 1_000;
const pauseAfterFailureMs = 500;

/** Starts a stage. It goes on, whatever happens to the broker, until it is stopped. */
export function startStage<Input extends DescMessage>(bus: Bus, stage: Stage<Input>): RunningStage {
  requireToken("stage name", stage.name);
  const stopping = new AbortController();
  const abandoning = new AbortController();
  const state = { consuming: false, busy: false };
  const session = { stopping: stopping.signal, abandoned: abandoning.signal, failedTries: createFailedTries() };
  const stopObserving = observeConsumer(bus, { name: stage.name, filter: filterOf(stage.consumes) });
  const done = supervise(bus, stage as unknown as Stage, session, state);
  return {
    consuming: () => state.consuming && bus.connection.connected(),
    stop: async () => {
      const reason = new AppError(
        "SHUTTING_DOWN",
        `service ${bus.service} is stopping; stage ${stage.name} gives its message to another instance`,
      );
      stopping.abort(reason);
      const idle = !state.busy && !bus.connection.connected();
      const graceMs = idle ? 0 : (stage.stopGraceMs ?? stageDefaults.stopGraceMs);
      const timer = setTimeout(() => abandoning.abort(reason), graceMs);
      stopObserving();
      await done;
      clearTimeout(timer);
    },
  };
}

interface StageState {
  consuming: boolean;
  /** Whether a message is in hand. */
  busy: boolean;
}

async function supervise(bus: Bus, stage: Stage, session: Session, state: StageState): Promise<void> {
  const { stopping } = session;
  while (!stopping.aborted && !bus.nc.isClosed()) {
    try {
      await consume(bus, stage, session, state);
    } catch (thrown) {
      state.consuming = false;
      if (stopping.aborted) break;
      const about = { event: "stage.interrupted", stage: stage.name, error: thrown };
      bus.logger.warn(about, "consuming was interrupted; going on");
      await delay(pauseAfterFailureMs, undefined, { signal: stopping }).catch(() => undefined);
    }
  }
  state.consuming = false;
}

async function consume(bus: Bus, stage: Stage, session: Session, state: StageState): Promise<void> {
  const failure = `consumer ${stage.name} of stream ${eventStream} could not be found or made`;
  const options = { failure, timeoutMs: 0, signal: session.stopping };
  const consumer = await bus.ask(() => ensureConsumer(bus, stage), options);
  state.consuming = true;
  while (!session.stopping.aborted) {
    // A pull that is left on stopping could still be given a message; it is waited for, unless the server hangs.
    const message: JsMsg | null = await orAborted(consumer.next({ expires: pullExpiresMs }), session.abandoned);
    if (message === null) continue;
    state.busy = true;
    try {
      await handleMessage(bus, stage, message, session);
    } finally {
      state.busy = false;
    }
  }
}

/** The subject of one kind of event, over all runs. */
function filterOf(consumes: DescMessage): string {
  return eventSubject("*", eventTypeOf(consumes).options.name);
}

/** Finds the durable consumer or makes it, again if somebody deleted it: finished work is known by its outcomes. */
async function ensureConsumer(bus: Bus, stage: Stage): Promise<Consumer> {
  const config = {
    durable_name: stage.name,
    ack_policy: AckPolicy.Explicit,
    deliver_policy: DeliverPolicy.All,
    filter_subject: filterOf(stage.consumes),
    ack_wait: nanos(stage.ackWaitMs ?? stageDefaults.ackWaitMs),
    // Tries are counted by the stage, which can keep the message as a dead letter; the server would only drop it.
    max_deliver: -1,
  };
  try {
    const { config: found } = await bus.jsm.consumers.info(eventStream, stage.name);
    if (found.ack_wait !== config.ack_wait || found.filter_subject !== config.filter_subject) {
      await bus.jsm.consumers.update(eventStream, stage.name, config);
    }
  } catch (thrown) {
    if (!isApiError(thrown, JetStreamApiCodes.ConsumerNotFound)) throw thrown;
    // Several instances may add it at once: with the same configuration all succeed.
    await bus.jsm.consumers.add(eventStream, config);
  }
  return bus.js.consumers.get(eventStream, stage.name);
}

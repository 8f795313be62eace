import type { DescMessage, Message, MessageShape } from "@bufbuild/protobuf";
import type { JsMsg } from "@nats-io/jetstream";
import { type RunFailed, RunFailedSchema } from "../../gen/millrace/v1/events_pb.ts";
import { joinSignals, orAborted } from "../abort.ts";
import { AppError } from "../errors.ts";
import type { Bus } from "./bus.ts";
import { watchCancellation } from "./cancellation.ts";
import { eventFromMessage, type ReceivedEvent } from "./cloud-event.ts";
import { eventTypeOf } from "./event-types.ts";
import type { FailedTries } from "./failed-tries.ts";
import { measureHandling, recordSettlement } from "./metrics.ts";
import { type Settlement, settle, settlementFor } from "./settlement.ts";
import type { Stage } from "./stage.ts";
import { eventStream, eventSubject, runIdFromSubject } from "./subjects.ts";
import { traceReceipt, withMessageContext, withProcessSpan } from "./tracing.ts";

/** Signals by which a stage is stopped. */
export interface Stopping {
  /** The work in hand shall end. */
  readonly stopping: AbortSignal;
  /** Nothing is waited for any longer. */
  readonly abandoned: AbortSignal;
}

/** What a stage has from its start to its stop. */
export interface Session extends Stopping {
  readonly failedTries: FailedTries;
}

export const stageDefaults = {
  ackWaitMs: 30_000,
  maxAttempts: 5,
  retryDelaysMs: [500, 2_000, 8_000, 30_000],
  stopGraceMs: 5_000,
} as const;

/** Handles one message of a stage from its delivery to its settlement. */
export async function handleMessage(bus: Bus, stage: Stage, message: JsMsg, session: Session): Promise<void> {
  const { ackWaitMs, maxAttempts, retryDelaysMs } = { ...stageDefaults, ...stage };
  const attempt = message.info.deliveryCount;
  // The client sends no more of these once the message is settled.
  const heartbeat = setInterval(() => message.working(), ackWaitMs / 3);
  try {
    const delivered = { consumer: stage.name, attempt };
    const settlement = await measureHandling(delivered, () => work(bus, stage, message, session)).catch(
      (thrown: unknown) => settlementFor(AppError.from(thrown), { attempt, maxAttempts, retryDelaysMs }),
    );
    if (settlement.kind === "acknowledge") clearInterval(heartbeat);
    const held = { bus, stage: stage.name, message, abandoned: session.abandoned };
    const runId = runIdFromSubject(message.subject);
    session.failedTries.note(message.seq, settlement);
    await withMessageContext(message.headers, runId, () => settle(held, settlement));
    recordSettlement(stage.name, settlement.kind);
  } finally {
    clearInterval(heartbeat);
  }
}

async function work(bus: Bus, stage: Stage, message: JsMsg, session: Session): Promise<Settlement> {
  const event = eventFromMessage(message);
  if (event.message.$typeName !== stage.consumes.typeName) {
    throw new AppError(
      "EVENT_INVALID",
      `event ${event.id} on ${event.subject} is a ${event.message.$typeName}, but stage ${stage.name} consumes ${stage.consumes.typeName}`,
      { details: { event: event.id, type: event.message.$typeName } },
    );
  }
  const template = eventSubject("{run}", eventTypeOf(stage.consumes).options.name);
  const attempt = message.info.deliveryCount;
  const delivery = { bus, stage, event, attempt, runId: runIdFromSubject(message.subject), ...session };
  const failureBefore = session.failedTries.reasonBefore(message.seq, attempt);
  const traced = { event, stage: stage.name, template, attempt, failureBefore };
  traceReceipt(traced);
  await withProcessSpan(traced, () => handleEvent(delivery));
  return { kind: "acknowledge" };
}

interface Delivery extends Stopping {
  readonly bus: Bus;
  readonly stage: Stage;
  readonly event: ReceivedEvent;
  readonly attempt: number;
  readonly runId: string;
}

async function handleEvent(delivery: Delivery): Promise<void> {
  const { bus, stage, event, attempt, runId, stopping, abandoned } = delivery;
  const logger = bus.logger.child({ stage: stage.name, attempt });
  if (await settledBefore(delivery)) {
    logger.info({ event: "stage.already_done" }, "this message was handled before; nothing to do");
    return;
  }
  const maxAttempts = stage.maxAttempts ?? stageDefaults.maxAttempts;
  if (attempt > maxAttempts) {
    throw new AppError(
      "INTERNAL",
      `stage ${stage.name} did not survive ${maxAttempts} tries of run ${runId}; look for crashes in its log`,
      { retryable: false, details: { runId, stage: stage.name } },
    );
  }
  using cancellation = await watchCancellation(bus, runId, { signal: stopping, patient: true });
  using working = joinSignals(stopping, cancellation.signal);
  const over = new AbortController();
  // A service that stops still stores what is finished, as long as that takes no longer than its grace.
  using storing = joinSignals(abandoned, cancellation.signal, over.signal);
  const { signal } = working;
  signal.throwIfAborted();
  logger.info({ event: "stage.started" }, `${stage.name} begins`);
  const publish = (message: Message, key = "") =>
    bus.publish(message, { runId, cause: event, key, patient: true, signal: storing.signal });
  const commit = () => {
    cancellation.signal.throwIfAborted();
    cancellation[Symbol.dispose]();
  };
  try {
    const outcome = await runHandler(delivery, { runId, attempt, signal, logger, publish, commit });
    cancellation.signal.throwIfAborted();
    await publish(outcome);
    logger.info({ event: "stage.finished", outcome: outcome.$typeName }, `${stage.name} is done`);
  } finally {
    // What a handler that threw has left in its queue, such as progress, must not come after the failure of the run.
    over.abort(new AppError("CANCELLED", `try ${attempt} of run ${runId} is over`, { details: { runId } }));
  }
}

async function runHandler({ stage, event, abandoned }: Delivery, context: Parameters<Stage["handle"]>[1]) {
  let outcome: Message;
  try {
    outcome = await orAborted(stage.handle(event as ReceivedEvent<MessageShape<DescMessage>>, context), abandoned);
  } catch (thrown) {
    // Whoever interrupted the work says why, whatever the handler made of it.
    context.signal.throwIfAborted();
    throw failureOf(thrown);
  }
  if (stage.outcomes.some(({ typeName }) => typeName === outcome.$typeName)) return outcome;
  throw new AppError(
    "INTERNAL",
    `stage ${stage.name} ended with a ${outcome.$typeName}, which is not among its outcomes; declare it there`,
    { retryable: false, details: { stage: stage.name } },
  );
}

/** A call that the handler made may have been cancelled at its other end: no reason to drop the message. */
function failureOf(thrown: unknown): AppError {
  const error = AppError.from(thrown);
  if (error.code !== "CANCELLED" && error.code !== "SHUTTING_DOWN") return error;
  return new AppError("INTERNAL", error.message, { cause: thrown, retryable: true });
}

/**
 * Whether an earlier delivery of this message got to its end. The stream itself is asked, since the broker forgets
 * message ids after its duplicate window, and a consumer that was made anew delivers everything again.
 */
async function settledBefore(delivery: Delivery): Promise<boolean> {
  const { stage, event } = delivery;
  const [failed, ...outcomes] = await Promise.all(
    [RunFailedSchema, ...stage.outcomes].map((schema) => lastOf(delivery, schema)),
  );
  if (outcomes.some((outcome) => outcome?.causationId === event.id)) return true;
  // A failure that was stored before this message is about an earlier copy of it: this one was sent to be tried again.
  return (
    failed?.causationId === event.id &&
    (failed.message as RunFailed).stage === stage.name &&
    failed.sequence > event.sequence
  );
}

async function lastOf({ bus, runId, stopping }: Delivery, schema: DescMessage): Promise<ReceivedEvent | undefined> {
  try {
    const subject = eventSubject(runId, eventTypeOf(schema).options.name);
    // That the broker is away is no failure of this message.
    return await bus.lastEvent(eventStream, subject, { signal: stopping, patient: true });
  } catch (thrown) {
    // Something else on that subject is nobody's outcome.
    if (AppError.from(thrown).code === "EVENT_INVALID") return undefined;
    throw thrown;
  }
}

/** What a run hears of the deployment of its model. */
import type { Message } from "@bufbuild/protobuf";
import { type Context, context } from "@opentelemetry/api";
import { ModelDeployedSchema } from "../../gen/millrace/v1/events_pb.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import type { ReceivedEvent } from "../../lib/bus/cloud-event.ts";
import { eventTypeOf } from "../../lib/bus/event-types.ts";
import { eventStream, eventSubject } from "../../lib/bus/subjects.ts";
import { AppError } from "../../lib/errors.ts";

/** What there is to tell, and the change that caused it. */
export interface Outcome {
  readonly cause: ReceivedEvent;
  readonly event: Message;
  /** Of the deployment's span, under which it is told. */
  readonly context: Context;
}

/** Tells the run that trained the model. A change that a person made belongs to no run, and nobody is told. */
export async function announce(bus: Bus, outcome: Outcome, signal: AbortSignal): Promise<void> {
  const { cause, event } = outcome;
  const runId = cause.correlationId;
  if (runId === "") return;
  await context.with(outcome.context, () => bus.publish(event, { runId, cause, patient: true, signal }));
}

/** Whether the run has heard of this deployment, from this instance or another. */
export async function toldBefore(
  bus: Bus,
  { id, correlationId: runId }: ReceivedEvent,
  signal: AbortSignal,
): Promise<boolean> {
  if (runId === "") return true;
  const subject = eventSubject(runId, eventTypeOf(ModelDeployedSchema).options.name);
  try {
    const last = await bus.lastEvent(eventStream, subject, { patient: true, signal });
    return last?.causationId === id;
  } catch (thrown) {
    // Rubbish under that subject is no news of the deployment.
    if (AppError.from(thrown).code === "EVENT_INVALID") return false;
    throw thrown;
  }
}

import { create } from "@bufbuild/protobuf";
import type { JsMsg } from "@nats-io/jetstream";
import { RunFailedSchema } from "../../gen/millrace/v1/events_pb.ts";
import type { AppError } from "../errors.ts";
import type { Bus } from "./bus.ts";
import { attributesFromMessage, type CloudEventAttributes } from "./cloud-event.ts";
import { storeDeadLetter } from "./dead-letters.ts";
import { isToken, runIdFromSubject } from "./subjects.ts";

/** What becomes of a message whose handling has ended. */
export type Settlement =
  /** Its work is done, or nobody wants it any more. */
  | { readonly kind: "acknowledge" }
  /** Another instance shall have it now. */
  | { readonly kind: "give back" }
  | { readonly kind: "retry"; readonly pauseMs: number; readonly error: AppError }
  | { readonly kind: "dead letter"; readonly error: AppError };

export interface RetryPolicy {
  /** Which try failed, from 1. */
  readonly attempt: number;
  readonly maxAttempts: number;
  /** Pause before each further try; the last one repeats. */
  readonly retryDelaysMs: readonly number[];
}

/** What to do with a message whose handling failed. Interruptions are told from failures by their code. */
export function settlementFor(error: AppError, { attempt, maxAttempts, retryDelaysMs }: RetryPolicy): Settlement {
  if (error.code === "SHUTTING_DOWN") return { kind: "give back" };
  if (error.code === "CANCELLED") return { kind: "acknowledge" };
  if (!error.retryable || attempt >= maxAttempts) return { kind: "dead letter", error };
  return { kind: "retry", pauseMs: retryDelaysMs[Math.min(attempt, retryDelaysMs.length) - 1] ?? 0, error };
}

/** A message in hand. */
export interface Held {
  readonly bus: Bus;
  readonly stage: string;
  readonly message: JsMsg;
  /** Aborts when the stage can wait no longer. */
  readonly abandoned: AbortSignal;
}

/** Tells the broker what became of a message. */
export async function settle(held: Held, settlement: Settlement): Promise<void> {
  const { message, bus, stage } = held;
  const attempt = message.info.deliveryCount;
  const logger = bus.logger.child({ stage, attempt, subject: message.subject });
  switch (settlement.kind) {
    case "acknowledge":
      return acknowledge(held);
    case "give back":
      message.nak();
      return sendNow(held);
    case "retry": {
      const { pauseMs, error } = settlement;
      logger.warn({ event: "stage.retry", error, pauseMs }, `try ${attempt} failed; the next follows in ${pauseMs} ms`);
      // A pause of 0 is left out by the client, and the message comes back at once.
      return message.nak(pauseMs);
    }
    case "dead letter":
      return giveUp(held, settlement.error);
  }
}

const ackTimeoutMs = 4_000;

/**
 * Acknowledges and waits for the confirmation. Without one the message may come back; then its outcome is found in the
 * stream, so this is no failure of the work.
 */
async function acknowledge({ bus, message, stage, abandoned }: Held): Promise<void> {
  const failure = `the acknowledgement of message ${message.seq} on ${message.subject} was not confirmed`;
  try {
    // Tried once: the client forgets how to acknowledge a message after the first time.
    const request = () => message.ackAck({ timeout: ackTimeoutMs });
    await bus.ask(request, { failure, timeoutMs: 0, signal: abandoned });
  } catch (error) {
    bus.logger.warn({ event: "stage.unconfirmed", stage, error }, "an acknowledgement was not confirmed");
  }
}

/** Keeps the message as a dead letter, tells the run, and only then lets go of the message. */
async function giveUp(held: Held, error: AppError): Promise<void> {
  const { bus, message, stage, abandoned } = held;
  const attempts = message.info.deliveryCount;
  const sequence = await storeDeadLetter(held, error);
  bus.logger.error(
    { event: "stage.dead_letter", stage, subject: message.subject, attempts, deadLetter: sequence, error },
    error.message,
  );
  const runId = runIdFromSubject(message.subject);
  const cause = readAttributes(message);
  // What is no event, or under a name that no run can have, belongs to no run.
  if (cause !== undefined && isToken(runId)) {
    const told = { stage, code: error.code, message: error.message, attempts, deadLetterSequence: BigInt(sequence) };
    // The dead letter's number keeps failures apart: of two stages at one event, or of the same event sent again.
    const options = { runId, cause, key: String(sequence) };
    await bus.publish(create(RunFailedSchema, told), { ...options, patient: true, signal: abandoned });
  }
  // Without a reason: servers before 2.10 take a reason for another command, and the message comes back.
  message.term();
  await sendNow(held);
}

function readAttributes(message: JsMsg): CloudEventAttributes | undefined {
  try {
    return attributesFromMessage(message);
  } catch {
    // No event of ours. The dead letter keeps it.
    return undefined;
  }
}

/** Waits until what was said has been sent, so that closing right after does not lose it; not for a server that hangs. */
async function sendNow({ bus, abandoned }: Held): Promise<void> {
  const failure = "what became of a message could not be told to the server";
  // If it is lost, the broker gives the message out again when its ack_wait is over.
  await bus.ask(() => bus.nc.flush(), { failure, timeoutMs: 0, signal: abandoned }).catch(() => undefined);
}

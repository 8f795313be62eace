import type { JsMsg } from "@nats-io/jetstream";
import { headers } from "@nats-io/nats-core";
import type { AppError } from "../errors.ts";
import type { Bus } from "./bus.ts";
import { encodeHeaderValue } from "./cloud-event.ts";
import { deadLetterStream, deadLetterSubject } from "./subjects.ts";
import { injectTrace } from "./tracing.ts";

/** Headers that a dead letter carries beside those of the message that it keeps. */
export const deadLetterHeaders = {
  stage: "millrace-dead-letter-stage",
  code: "millrace-dead-letter-code",
  reason: "millrace-dead-letter-reason",
  attempts: "millrace-dead-letter-attempts",
  subject: "millrace-dead-letter-subject",
  stream: "millrace-dead-letter-stream",
  sequence: "millrace-dead-letter-sequence",
  time: "millrace-dead-letter-time",
} as const;

/**
 * Keeps a message that a stage gave up on: its data and headers untouched, and why. Returns its sequence in the
 * dead-letter stream. The same message given up on again by the same stage is kept once.
 */
export async function storeDeadLetter(bus: Bus, stage: string, message: JsMsg, error: AppError): Promise<number> {
  const kept = headers();
  for (const key of message.headers?.keys() ?? []) {
    // Nats-* headers steer the broker: carried along, the old message id would make this one a duplicate.
    if (/^nats-/i.test(key)) continue;
    for (const value of message.headers?.values(key) ?? []) kept.append(key, value);
  }
  injectTrace(kept);
  const reasons: Record<keyof typeof deadLetterHeaders, string> = {
    stage,
    code: error.code,
    reason: error.message,
    attempts: String(message.info.deliveryCount),
    subject: message.subject,
    stream: message.info.stream,
    sequence: String(message.seq),
    time: new Date().toISOString(),
  };
  for (const [name, header] of Object.entries(deadLetterHeaders)) {
    kept.set(header, encodeHeaderValue(reasons[name as keyof typeof reasons]));
  }
  const runId = message.subject.split(".")[2] ?? "unknown";
  const ack = await bus.js.publish(deadLetterSubject(stage, runId), message.data, {
    headers: kept,
    msgID: `${stage}:${message.info.stream}:${message.seq}`,
    expect: { streamName: deadLetterStream },
  });
  return ack.seq;
}

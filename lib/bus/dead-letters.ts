import { headers, type MsgHdrs } from "@nats-io/nats-core";
import type { AppError } from "../errors.ts";
import { encodeHeaderValue } from "./cloud-event.ts";
import type { Held } from "./settlement.ts";
import { deadLetterStream, deadLetterSubject, runIdFromSubject } from "./subjects.ts";
import { injectTrace } from "./tracing.ts";

/** Headers that a dead letter carries beside those of the message that it keeps; values are percent-encoded. */
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

const maxReasonLength = 1_000;
/** Room that headers may take in a message of the server's largest size: ours, and those of the message that are kept. */
const headerAllowanceBytes = 16 * 1024;
const keptHeaderBytes = 8 * 1024;

/**
 * Keeps a message that a stage gave up on: its data and headers untouched, as far as there is room, and why. Returns its sequence in the
 * dead-letter stream. The same message given up on again by the same stage is kept once.
 */
export async function storeDeadLetter(held: Held, error: AppError): Promise<number> {
  const { bus, stage, message, abandoned } = held;
  const maxBytes = (bus.nc.info?.max_payload ?? Number.POSITIVE_INFINITY) - headerAllowanceBytes;
  // What just fitted into a message does not fit beside the reasons; it stays where stream and sequence say.
  const data = message.data.length > maxBytes ? new Uint8Array() : message.data;
  const time = new Date();
  const publish = () =>
    bus.js.publish(deadLetterSubject(stage, runIdFromSubject(message.subject)), data, {
      headers: headersFor(held, error, time),
      // With its time: a stream that was made anew counts from 1 again.
      msgID: `${stage}:${message.info.stream}:${message.seq}:${message.info.timestampNanos}`,
      expect: { streamName: deadLetterStream },
    });
  const failure = `message ${message.seq} on ${message.subject} could not be kept as a dead letter`;
  return (await bus.ask(publish, { failure, patient: true, signal: abandoned })).seq;
}

function headersFor({ stage, message }: Held, error: AppError, time: Date): MsgHdrs {
  const kept = headers();
  let bytes = 0;
  for (const key of message.headers?.keys() ?? []) {
    // Nats-* headers steer the broker: carried along, the old message id would make this one a duplicate.
    if (/^nats-/i.test(key)) continue;
    for (const value of message.headers?.values(key) ?? []) {
      bytes += Buffer.byteLength(key) + Buffer.byteLength(value);
      if (bytes <= keptHeaderBytes) kept.append(key, value);
    }
  }
  injectTrace(kept);
  const reasons: Record<keyof typeof deadLetterHeaders, string> = {
    stage,
    code: error.code,
    reason: error.message.slice(0, maxReasonLength),
    attempts: String(message.info.deliveryCount),
    subject: message.subject,
    stream: message.info.stream,
    sequence: String(message.seq),
    time: time.toISOString(),
  };
  for (const [name, header] of Object.entries(deadLetterHeaders)) {
    kept.set(header, encodeHeaderValue(reasons[name as keyof typeof reasons]));
  }
  return kept;
}

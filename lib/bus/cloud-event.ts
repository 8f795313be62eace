import { createHash } from "node:crypto";
import { fromBinary, type Message } from "@bufbuild/protobuf";
import { headers, Match, type MsgHdrs } from "@nats-io/nats-core";
import { AppError } from "../errors.ts";
import { eventTypeOf } from "./event-types.ts";

/**
 * CloudEvents 1.0 in the binary mode of its NATS protocol binding: one `ce-` header per attribute, percent-encoded,
 * and the payload as the message's data.
 * https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md
 */
export interface CloudEventAttributes {
  /** The same cause gives the same id, so a repeated publication is recognised. */
  readonly id: string;
  /** Service that published it. */
  readonly source: string;
  /** Full name of the protobuf message. */
  readonly type: string;
  /** When it was first published. */
  readonly time: Date;
  /** Run that it belongs to; empty for a change that a person made to the registry. */
  readonly correlationId: string;
  /** Id of the event that led to it; empty for the first of a run. */
  readonly causationId: string;
  /** Trace in which the chain of events started; handed on, never rewritten. Each hop's own is in `traceparent`. */
  readonly originTraceparent: string;
}

/** An event read from a stream. */
export interface ReceivedEvent<M extends Message = Message> extends CloudEventAttributes {
  readonly message: M;
  readonly subject: string;
  /** Position in the stream. */
  readonly sequence: number;
  /** The message's headers, from which the hop's trace context is read. */
  readonly headers: MsgHdrs | undefined;
}

/**
 * The id of an event: a digest of what caused it, what it is and, where one cause has several such events, which of
 * them. A handler that runs twice publishes the same ids twice, and the stream drops the second.
 */
export function eventIdFrom(cause: string, eventName: string, key = ""): string {
  return createHash("sha256").update(`${cause}\n${eventName}\n${key}`).digest("hex").slice(0, 32);
}

/** Percent-encodes what the binding does not allow in a header: space, `"`, `%` and all outside U+0021..U+007E. */
export function encodeHeaderValue(value: string): string {
  return value.replace(/[^\x21-\x7e]|["%]/gu, (character) =>
    [...new TextEncoder().encode(character)]
      .map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`)
      .join(""),
  );
}

/** The inverse of {@link encodeHeaderValue}. Bytes that are not UTF-8 become U+FFFD, as the binding allows. */
export function decodeHeaderValue(value: string): string {
  const bytes: number[] = [];
  for (const [part, escaped] of value.matchAll(/%([0-9a-f]{2})|[^%]+|%/gi)) {
    if (escaped === undefined) bytes.push(...new TextEncoder().encode(part));
    else bytes.push(Number.parseInt(escaped, 16));
  }
  return new TextDecoder().decode(Uint8Array.from(bytes));
}

/** Headers of an event. Made anew for each try, since publishing changes the object that it is given. */
export function headersFromEvent(event: CloudEventAttributes): MsgHdrs {
  const result = headers();
  const attributes: Record<string, string> = {
    specversion: "1.0",
    id: event.id,
    source: event.source,
    type: event.type,
    time: event.time.toISOString(),
    datacontenttype: "application/protobuf",
    correlationid: event.correlationId,
    causationid: event.causationId,
    traceparent: event.originTraceparent,
  };
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== "") result.set(`ce-${name}`, encodeHeaderValue(value));
  }
  return result;
}

/** What a stream hands over for each message, as far as events need it. */
export interface StreamMessage {
  readonly subject: string;
  readonly seq: number;
  /** When it was stored. */
  readonly time?: Date;
  readonly data: Uint8Array;
  readonly headers?: MsgHdrs | undefined;
  readonly header?: MsgHdrs | undefined;
}

/** Reads an event. EVENT_INVALID if a required attribute is missing, the type is unknown or the payload is not of it. */
export function eventFromMessage(message: StreamMessage): ReceivedEvent {
  const attributes = attributesFromMessage(message);
  return {
    ...attributes,
    message: payloadFrom(message, attributes.type),
    subject: message.subject,
    sequence: message.seq,
    headers: headersOf(message),
  };
}

/** Reads the attributes alone: a message can be an event although nobody here can read its payload. */
export function attributesFromMessage(message: StreamMessage): CloudEventAttributes {
  // Other publishers spell the names in other cases.
  const read = (name: string) => decodeHeaderValue(headersOf(message)?.get(`ce-${name}`, Match.IgnoreCase) ?? "");
  for (const name of ["id", "source", "type", "specversion"]) {
    if (read(name) === "") throw invalid(message, `is not a CloudEvent: it has no ce-${name}`);
  }
  if (read("specversion") !== "1.0") throw invalid(message, `is CloudEvents ${read("specversion")}; only 1.0 is read`);
  return {
    id: read("id"),
    source: read("source"),
    type: read("type"),
    time: timeFrom(message, read("time")),
    correlationId: read("correlationid"),
    causationId: read("causationid"),
    originTraceparent: read("traceparent"),
  };
}

/** The time attribute is optional; the broker's own stands in for it. */
function timeFrom(message: StreamMessage, value: string): Date {
  const time = value === "" ? (message.time ?? new Date(0)) : new Date(value);
  if (Number.isNaN(time.getTime())) throw invalid(message, `has "${value}" as ce-time, which is no time`);
  return time;
}

function headersOf(message: StreamMessage): MsgHdrs | undefined {
  return message.headers ?? message.header;
}

function payloadFrom(message: StreamMessage, type: string): Message {
  const { schema } = eventTypeOf(type);
  try {
    return fromBinary(schema, message.data);
  } catch (cause) {
    throw invalid(message, `has data that is no ${type}`, cause);
  }
}

function invalid({ seq, subject }: StreamMessage, what: string, cause?: unknown): AppError {
  const details = { subject, sequence: String(seq) };
  return new AppError("EVENT_INVALID", `message ${seq} on ${subject} ${what}`, { cause, details });
}

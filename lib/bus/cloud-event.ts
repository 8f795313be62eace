import { createHash } from "node:crypto";
import { fromBinary, type Message } from "@bufbuild/protobuf";
import { headers, type MsgHdrs } from "@nats-io/nats-core";
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
  readonly data: Uint8Array;
  readonly headers?: MsgHdrs | undefined;
  readonly header?: MsgHdrs | undefined;
}

/** Reads an event. EVENT_INVALID if a required attribute is missing, the type is unknown or the payload is not of it. */
export function eventFromMessage(message: StreamMessage): ReceivedEvent {
  const found = message.headers ?? message.header;
  const read = (name: string) => decodeHeaderValue(found?.get(`ce-${name}`) ?? "");
  const where = `message ${message.seq} on ${message.subject}`;
  for (const name of ["id", "source", "type", "specversion"]) {
    if (read(name) === "") throw new AppError("EVENT_INVALID", `${where} is not a CloudEvent: it has no ce-${name}`);
  }
  return {
    id: read("id"),
    source: read("source"),
    type: read("type"),
    time: new Date(read("time")),
    correlationId: read("correlationid"),
    causationId: read("causationid"),
    originTraceparent: read("traceparent"),
    message: payloadFrom(message, read("type"), where),
    subject: message.subject,
    sequence: message.seq,
    headers: found,
  };
}

function payloadFrom(message: StreamMessage, type: string, where: string): Message {
  const { schema } = eventTypeOf(type);
  try {
    return fromBinary(schema, message.data);
  } catch (cause) {
    throw new AppError("EVENT_INVALID", `the data of ${where} is no ${type}`, { cause });
  }
}

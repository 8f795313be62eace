import type { MsgHdrs } from "@nats-io/nats-core";
import {
  type Context,
  context,
  propagation,
  SpanKind,
  type TextMapGetter,
  type TextMapSetter,
  trace,
} from "@opentelemetry/api";
import type { SpanAttributes } from "../telemetry/attributes.ts";
import { startSpan, withRunId, withSpan } from "../telemetry/spans.ts";
import type { ReceivedEvent } from "./cloud-event.ts";

/** Semantic conventions for messaging, and the system's name under its older key, which today's dashboards read. */
const system: SpanAttributes = { "messaging.system": "nats", "messaging.system.name": "nats" };

const setter: TextMapSetter<MsgHdrs> = { set: (headers, key, value) => headers.set(key, value) };
const getter: TextMapGetter<MsgHdrs> = {
  get: (headers, key) => headers.get(key, "insensitive") || undefined,
  keys: (headers) => headers.keys(),
};

/** Writes the active trace context into a message's headers. */
export function injectTrace(headers: MsgHdrs): void {
  propagation.inject(context.active(), headers, setter);
}

/** The trace context in which a message was sent, on top of what is active. */
export function contextFromHeaders(headers: MsgHdrs | undefined): Context {
  return headers === undefined ? context.active() : propagation.extract(context.active(), headers, getter);
}

/** Runs what follows from a message in its trace and its run, such as giving it up. */
export function withMessageContext<T>(headers: MsgHdrs | undefined, runId: string, work: () => T): T {
  return context.with(contextFromHeaders(headers), () => withRunId(runId, work));
}

/** The active span as a W3C traceparent, or "" where nothing is traced. */
export function originTraceparent(): string {
  const carrier: Record<string, string> = {};
  propagation.inject(context.active(), carrier);
  return carrier.traceparent ?? "";
}

export interface SentEvent {
  readonly subject: string;
  /** The subject with names in place of ids: few different span names. */
  readonly template: string;
  readonly id: string;
  readonly type: string;
  readonly source: string;
  /** Empty for an event that is no run's. */
  readonly runId: string;
}

/** Runs a publication in a producer span; what it injects makes the consumer its child. */
export function withSendSpan<T>(event: SentEvent, publish: () => Promise<T>): Promise<T> {
  const attributes: SpanAttributes = {
    ...system,
    "messaging.operation.name": "publish",
    "messaging.operation.type": "send",
    "messaging.destination.name": event.subject,
    "messaging.destination.template": event.template,
    "messaging.message.id": event.id,
    "cloudevents.event_id": event.id,
    "cloudevents.event_source": event.source,
    "cloudevents.event_type": event.type,
    ...(event.runId !== "" && { "millrace.run.id": event.runId }),
  };
  return withSpan(`send ${event.template}`, { kind: SpanKind.PRODUCER, attributes }, publish);
}

export interface Delivery {
  readonly event: ReceivedEvent;
  readonly stage: string;
  readonly template: string;
  /** Which delivery of the message this is, from 1. */
  readonly attempt: number;
  /** Why the delivery before failed; undefined for the first. */
  readonly failureBefore: string | undefined;
}

/**
 * Notes that a message has arrived, as a span that ends at once: if the process dies while it works on the message, this
 * is what its trace shows of the try.
 */
export function traceReceipt(delivery: Delivery): void {
  const attributes = { ...deliveryAttributes(delivery), ...operation("receive") };
  const parent = contextFromHeaders(delivery.event.headers);
  startSpan(`receive ${delivery.template}`, { kind: SpanKind.CLIENT, attributes, parent }).end();
}

/**
 * Runs the handling of a message in a consumer span. Its parent is the publication that sent the message, so that a run
 * reads as one trace; the link says the same to tools that follow links.
 */
export function withProcessSpan<T>(delivery: Delivery, handle: () => Promise<T>): Promise<T> {
  const sender = trace.getSpanContext(contextFromHeaders(delivery.event.headers));
  const attributes = { ...deliveryAttributes(delivery), ...operation("process") };
  const links = sender === undefined ? [] : [{ context: sender }];
  return withRunId(delivery.event.correlationId, () => {
    const parent = contextFromHeaders(delivery.event.headers);
    return withSpan(`process ${delivery.template}`, { kind: SpanKind.CONSUMER, attributes, parent, links }, handle);
  });
}

function operation(type: "receive" | "process"): SpanAttributes {
  return { "messaging.operation.name": type, "messaging.operation.type": type };
}

function deliveryAttributes({ event, stage, template, attempt, failureBefore }: Delivery): SpanAttributes {
  return {
    ...system,
    "messaging.destination.name": event.subject,
    "messaging.destination.template": template,
    "messaging.consumer.group.name": stage,
    "messaging.message.id": event.id,
    "cloudevents.event_id": event.id,
    "cloudevents.event_source": event.source,
    "cloudevents.event_type": event.type,
    "millrace.run.id": event.correlationId,
    "millrace.stage": stage,
    "millrace.delivery.attempt": attempt,
    ...(failureBefore !== undefined && { "millrace.delivery.failure_before": failureBefore }),
  };
}

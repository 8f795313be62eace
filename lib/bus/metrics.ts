import { orAborted } from "../abort.ts";
import { AppError } from "../errors.ts";
import { observeMetrics, recordMetric } from "../telemetry/metrics.ts";
import type { Bus } from "./bus.ts";
import type { Settlement } from "./settlement.ts";
import { eventStream } from "./subjects.ts";

/** Counts and times a publication. `template` is its subject with names in place of ids. */
export function measurePublication<T>(template: string, publish: () => Promise<T>): Promise<T> {
  return measure(publish, (seconds, failure) => {
    const attributes = {
      "messaging.system": "nats",
      "messaging.operation.name": "publish",
      "messaging.destination.template": template,
      ...failure,
    };
    recordMetric("messaging.client.sent.messages", 1, attributes);
    recordMetric("messaging.client.operation.duration", seconds, attributes);
  });
}

/** A message that was given to a consumer. */
export interface DeliveredMessage {
  readonly consumer: string;
  /** Which delivery of the message this is, from 1. */
  readonly attempt: number;
}

/** Counts a delivery and times what is done with it. */
export function measureHandling<T>({ consumer, attempt }: DeliveredMessage, handle: () => Promise<T>): Promise<T> {
  const group = { "messaging.consumer.group.name": consumer };
  const attributes = { "messaging.system": "nats", "messaging.operation.name": "process", ...group };
  recordMetric("messaging.client.consumed.messages", 1, attributes);
  if (attempt > 1) recordMetric("millrace.consumer.redelivered.messages", 1, group);
  return measure(handle, (seconds, failure) =>
    recordMetric("messaging.process.duration", seconds, { ...attributes, ...failure }),
  );
}

const settlements: readonly Settlement["kind"][] = ["acknowledge", "give back", "retry", "dead letter"];

/** Counts what became of a delivery. */
export function recordSettlement(consumer: string, settlement: Settlement["kind"], count = 1): void {
  const attributes = { "messaging.consumer.group.name": consumer, "millrace.consumer.settlement": settlement };
  recordMetric("millrace.consumer.settled.messages", count, attributes);
}

/** Times work in seconds. Its error's code goes to `record` as well. */
async function measure<T>(
  work: () => Promise<T>,
  record: (seconds: number, failure: { "error.type"?: string }) => void,
): Promise<T> {
  const startedMs = performance.now();
  const seconds = () => (performance.now() - startedMs) / 1_000;
  try {
    const result = await work();
    record(seconds(), {});
    return result;
  } catch (thrown) {
    record(seconds(), { "error.type": AppError.from(thrown).code });
    throw thrown;
  }
}

/** How long an answer of the broker is good: collectors may ask more often than that, and at once. */
const freshForMs = 5_000;
/** A collection of metrics does not wait longer for the broker. */
const askTimeoutMs = 1_000;

/** A durable consumer of the log of runs. */
export interface ObservedConsumer {
  readonly name: string;
  /** Subject that it delivers. */
  readonly filter: string;
}

interface Backlog {
  readonly pending: number;
  readonly ackPending: number;
  readonly lagSeconds: number;
}

/** Observes what waits for a consumer and for how long, as the broker sees it, until the function that it returns is called. */
export function observeConsumer(bus: Bus, consumer: ObservedConsumer): () => void {
  const attributes = { "messaging.consumer.group.name": consumer.name };
  // A counter that first appears as 1 has no increase: an alert would miss the first dead letter of all.
  for (const settlement of settlements) recordSettlement(consumer.name, settlement, 0);
  recordMetric("millrace.consumer.redelivered.messages", 0, attributes);
  let known: { readonly backlog: Promise<Backlog>; readonly atMs: number } | undefined;
  const backlog = (): Promise<Backlog> => {
    const nowMs = performance.now();
    if (known === undefined || nowMs - known.atMs > freshForMs) known = { backlog: ask(bus, consumer), atMs: nowMs };
    return known.backlog;
  };
  return observeMetrics(
    ["millrace.consumer.pending", "millrace.consumer.ack_pending", "millrace.consumer.lag"],
    async ({ observe }) => {
      if (!bus.connection.connected()) return;
      // While the broker does not answer, the last numbers stand.
      const answer = await orAborted(backlog(), AbortSignal.timeout(askTimeoutMs)).catch(() => undefined);
      if (answer === undefined) return;
      observe("millrace.consumer.pending", answer.pending, attributes);
      observe("millrace.consumer.ack_pending", answer.ackPending, attributes);
      observe("millrace.consumer.lag", answer.lagSeconds, attributes);
    },
  );
}

async function ask({ jsm }: Bus, { name, filter }: ObservedConsumer): Promise<Backlog> {
  const { num_pending: pending, num_ack_pending: ackPending, ack_floor } = await jsm.consumers.info(eventStream, name);
  if (pending + ackPending === 0) return { pending, ackPending, lagSeconds: 0 };
  // All before the floor is settled, so the next message that the consumer delivers is the oldest one unfinished.
  const next = { seq: ack_floor.stream_seq + 1, next_by_subj: filter };
  const oldest = await jsm.streams.getMessage(eventStream, next);
  const lagSeconds = oldest === null ? 0 : Math.max(0, Date.now() - oldest.time.getTime()) / 1_000;
  return { pending, ackPending, lagSeconds };
}

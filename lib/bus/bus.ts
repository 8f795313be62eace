import { setTimeout as delay } from "node:timers/promises";
import { type Message, toBinary } from "@bufbuild/protobuf";
import {
  JetStreamApiError,
  type JetStreamClient,
  type JetStreamManager,
  jetstream,
  jetstreamManager,
} from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/nats-core";
import { connect } from "@nats-io/transport-node";
import { AppError } from "../errors.ts";
import type { Logger } from "../log.ts";
import {
  type CloudEventAttributes,
  eventFromMessage,
  eventIdFrom,
  headersFromEvent,
  type ReceivedEvent,
} from "./cloud-event.ts";
import { eventTypeOf } from "./event-types.ts";
import { eventStream, eventSubject, registryStream, registrySubject } from "./subjects.ts";
import { ensureTopology, type TopologyOptions } from "./topology.ts";
import { injectTrace, originTraceparent, withSendSpan } from "./tracing.ts";

export interface BusOptions extends TopologyOptions {
  /** Server, such as "nats://127.0.0.1:4222", or several separated by commas. */
  readonly url: string;
  /** Name of this service: the source of its events. */
  readonly service: string;
  readonly logger: Logger;
  /** How long a publication is tried before it fails with BROKER_UNAVAILABLE, in milliseconds. A leader's death in a cluster takes about 7 s. Default: 60,000. */
  readonly publishTimeoutMs?: number;
}

/** A connection to the broker, for publishing events and for reading them. */
export interface Bus extends AsyncDisposable {
  readonly service: string;
  readonly logger: Logger;
  readonly nc: NatsConnection;
  readonly js: JetStreamClient;
  readonly jsm: JetStreamManager;
  /**
   * Publishes an event and returns once the broker has stored it. The broker being away is waited for; a full stream is
   * STREAM_FULL, a log that has moved on (see `expectedLastSequence`) is CONFLICT.
   */
  publish(message: Message, options: PublishOptions): Promise<Published>;
  /** Publishes many events with at most `window` unconfirmed at a time, in no guaranteed order. Rejects, after all have settled, if one could not be stored. */
  publishAll(events: Iterable<readonly [Message, PublishOptions]>, window?: number): Promise<Published[]>;
  /** The last event on a subject, which may have wildcards, or undefined. */
  lastEvent(stream: string, subject: string): Promise<ReceivedEvent | undefined>;
}

/** Where an event belongs and what led to it. */
export interface PublishOptions {
  /** Run that it belongs to; empty for a change that a person made to the registry. */
  readonly runId: string;
  /** Event that led to it. */
  readonly cause?: Pick<CloudEventAttributes, "id" | "originTraceparent">;
  /** Which of several such events of one cause it is, such as the number of the epoch. */
  readonly key?: string;
  /** Registry events: the model that is changed. */
  readonly modelName?: string;
  /** Registry events: sequence of the last change that the caller has seen; anything newer is CONFLICT. */
  readonly expectedLastSequence?: number;
  /** Stops trying. */
  readonly signal?: AbortSignal;
}

/** A stored event. */
export interface Published {
  readonly id: string;
  readonly sequence: number;
  /** Whether the stream had it already. */
  readonly duplicate: boolean;
}

const publishTryTimeoutMs = 5_000;

/** Connects, reconnects without end, and makes sure that the streams exist. BROKER_UNAVAILABLE if there is no server at `url` now. */
export async function openBus(options: BusOptions): Promise<Bus> {
  const nc = await connectTo(options);
  const jsm = await jetstreamManager(nc, { checkAPI: false });
  await ensureTopology(jsm, options);
  const js = jetstream(nc);
  const bus: Bus = {
    service: options.service,
    logger: options.logger,
    nc,
    js,
    jsm,
    publish: (message, publishOptions) => publish(bus, options.publishTimeoutMs ?? 60_000, message, publishOptions),
    publishAll: (events, window = 256) => publishAll(bus, events, window),
    lastEvent: async (stream, subject) => {
      const stored = await jsm.streams.getMessage(stream, { last_by_subj: subject });
      return stored === null ? undefined : eventFromMessage(stored);
    },
    [Symbol.asyncDispose]: async () => {
      if (!nc.isClosed()) await nc.drain().catch(() => nc.close());
    },
  };
  return bus;
}

async function connectTo({ url, service, logger }: BusOptions): Promise<NatsConnection> {
  let nc: NatsConnection;
  try {
    // Capturing a stack for each request halves the rate of windowed publishing.
    nc = await connect({
      servers: url.split(","),
      name: `millrace-${service}`,
      maxReconnectAttempts: -1,
      noAsyncTraces: true,
    });
  } catch (cause) {
    throw new AppError(
      "BROKER_UNAVAILABLE",
      `no NATS server answers at ${url}; start one with JetStream (nats-server -js) or set MILLRACE_NATS_URL`,
      {
        cause,
        details: { url },
      },
    );
  }
  void watchConnection(nc, logger);
  return nc;
}

async function watchConnection(nc: NatsConnection, logger: Logger): Promise<void> {
  for await (const status of nc.status()) {
    if (status.type === "disconnect" || status.type === "reconnect" || status.type === "error") {
      logger.warn({ event: `broker.${status.type}` }, `NATS connection: ${status.type}`);
    }
  }
}

async function publish(bus: Bus, timeoutMs: number, message: Message, options: PublishOptions): Promise<Published> {
  const type = eventTypeOf(message);
  const name = type.options.name;
  const subject = type.options.registry ? registrySubject(options.modelName ?? "") : eventSubject(options.runId, name);
  const template = type.options.registry ? registrySubject("{model}") : eventSubject("{run}", name);
  const id = eventIdFrom(options.cause?.id ?? options.runId, name, options.key);
  return withSendSpan({ subject, template, id, type: message.$typeName, source: bus.service }, async () => {
    const event: CloudEventAttributes = {
      id,
      source: bus.service,
      type: message.$typeName,
      time: new Date(),
      correlationId: options.runId,
      causationId: options.cause?.id ?? "",
      originTraceparent: options.cause?.originTraceparent || originTraceparent(),
    };
    const request = {
      subject,
      payload: toBinary(type.schema, message),
      event,
      stream: type.options.registry ? registryStream : eventStream,
      expectedLastSequence: options.expectedLastSequence,
    };
    return publishUntilStored(bus, request, Date.now() + timeoutMs, options.signal);
  });
}

interface PublishRequest {
  readonly subject: string;
  readonly payload: Uint8Array;
  readonly event: CloudEventAttributes;
  readonly stream: string;
  readonly expectedLastSequence: number | undefined;
}

async function publishUntilStored(
  bus: Bus,
  request: PublishRequest,
  deadline: number,
  signal?: AbortSignal,
): Promise<Published> {
  for (let attempt = 0; ; attempt++) {
    signal?.throwIfAborted();
    try {
      return await publishOnce(bus, request);
    } catch (thrown) {
      const error = publishErrorFrom(thrown, request);
      const pauseMs = Math.min(100 * 2 ** attempt, 2_000);
      if (error.code !== "BROKER_UNAVAILABLE" || bus.nc.isClosed() || Date.now() + pauseMs > deadline) throw error;
      await delay(pauseMs, undefined, signal === undefined ? {} : { signal });
    }
  }
}

async function publishOnce(
  bus: Bus,
  { subject, payload, event, stream, expectedLastSequence }: PublishRequest,
): Promise<Published> {
  const headers = headersFromEvent(event);
  injectTrace(headers);
  const ack = await bus.js.publish(subject, payload, {
    msgID: event.id,
    headers,
    timeout: publishTryTimeoutMs,
    expect: {
      streamName: stream,
      ...(expectedLastSequence === undefined ? {} : { lastSubjectSequence: expectedLastSequence }),
    },
  });
  return { id: event.id, sequence: ack.seq, duplicate: ack.duplicate };
}

/** Error numbers of JetStream: https://github.com/nats-io/nats-server/blob/main/server/errors.json */
const jetStreamErrors = { wrongLastSequence: [10071, 10164], full: [10077, 10047, 10023, 10118, 10054] } as const;

function publishErrorFrom(thrown: unknown, { subject, stream, payload }: PublishRequest): AppError {
  if (thrown instanceof AppError) return thrown;
  const details = { subject, stream };
  if (thrown instanceof JetStreamApiError) {
    const number = thrown.code;
    if (jetStreamErrors.wrongLastSequence.some((n) => n === number)) {
      return new AppError("CONFLICT", `${subject} has changed since it was read; read it again and retry`, {
        cause: thrown,
        details,
      });
    }
    if (jetStreamErrors.full.some((n) => n === number)) {
      return new AppError(
        "STREAM_FULL",
        `stream ${stream} refused an event of ${payload.length} bytes on ${subject}: ${thrown.message}; raise its limits or wait for old events to age out`,
        {
          cause: thrown,
          details,
        },
      );
    }
  }
  return new AppError(
    "BROKER_UNAVAILABLE",
    `event on ${subject} could not be stored: ${AppError.from(thrown).message}`,
    { cause: thrown, details },
  );
}

async function publishAll(
  bus: Bus,
  events: Iterable<readonly [Message, PublishOptions]>,
  window: number,
): Promise<Published[]> {
  const results: Promise<Published>[] = [];
  const inFlight = new Set<Promise<unknown>>();
  for (const [message, options] of events) {
    const result = bus.publish(message, options);
    const settled: Promise<unknown> = result.catch(() => undefined).finally(() => inFlight.delete(settled));
    results.push(result);
    inFlight.add(settled);
    if (inFlight.size >= window) await Promise.race(inFlight);
  }
  await Promise.all(inFlight);
  return Promise.all(results);
}

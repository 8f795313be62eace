import type { Message } from "@bufbuild/protobuf";
import { type JetStreamClient, type JetStreamManager, jetstream, jetstreamManager } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/nats-core";
import { AppError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { type AskOptions, ask, type Insistence } from "./asking.ts";
import { isStreamMissing } from "./broker-errors.ts";
import { type CloudEventAttributes, eventFromMessage, type ReceivedEvent } from "./cloud-event.ts";
import { type Connection, openConnection } from "./connection.ts";
import { publishEvent, publishEvents } from "./publishing.ts";
import { ensureTopology, type TopologyOptions } from "./topology.ts";

export interface BusOptions extends TopologyOptions {
  /** Server, such as "nats://127.0.0.1:4222", or several separated by commas; with "user:password@" or "token@" where needed. */
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
  readonly connection: Connection;
  readonly nc: NatsConnection;
  readonly js: JetStreamClient;
  readonly jsm: JetStreamManager;
  /**
   * Publishes an event and returns once the broker has stored it. The broker being away is waited for; a full stream is
   * STREAM_FULL, a log that has moved on (see `expectedLastSequence`) is CONFLICT, an event that is too large EVENT_INVALID.
   */
  publish(message: Message, options: PublishOptions): Promise<Published>;
  /**
   * Publishes many events with at most `window` unconfirmed at a time, in no guaranteed order. Sends no more after one
   * could not be stored, and rejects with its error when all that were sent have settled.
   */
  publishAll(events: Iterable<readonly [Message, PublishOptions]>, window?: number): Promise<Published[]>;
  /** The last event on a subject, which may have wildcards, or undefined. EVENT_INVALID if it is no event. */
  lastEvent(stream: string, subject: string, options?: Insistence): Promise<ReceivedEvent | undefined>;
  /** Makes a request of the broker, and makes it again while the broker is away. A stream that is missing is made again. */
  ask<T>(request: () => Promise<T>, options: AskOptions): Promise<T>;
}

/** Where an event belongs and what led to it. */
export interface PublishOptions {
  /** Run that it belongs to; empty for a change that a person made to the registry. An event of predictions names the run that trained the model. */
  readonly runId: string;
  /** Event that led to it. */
  readonly cause?: Pick<CloudEventAttributes, "id" | "originTraceparent">;
  /** Which of several such events of one cause it is, such as the number of the epoch. */
  readonly key?: string;
  /** Events of the registry and of predictions: the model that they are about. */
  readonly modelName?: string;
  /** Registry events: sequence of the last change that the caller has seen; anything newer is CONFLICT. */
  readonly expectedLastSequence?: number;
  /** Waits without end for the broker and for space in a full stream, until `signal` aborts. Default: false. */
  readonly patient?: boolean;
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

const publishTimeoutMs = 60_000;
/** How long one try of a request waits for its answer. */
const tryTimeoutMs = 5_000;
/** How long a cluster that has just been started may take to choose its leaders. */
const topologyTimeoutMs = 10_000;

/** Connects, reconnects without end, and makes sure that the streams exist. BROKER_UNAVAILABLE if there is no server at `url` now, CONFIGURATION_INVALID if it cannot hold them. */
export async function openBus(options: BusOptions): Promise<Bus> {
  const { service, logger } = options;
  const connection = await openConnection(options);
  const { nc } = connection;
  const timeoutMs = options.publishTimeoutMs ?? publishTimeoutMs;
  const limits = { timeout: Math.min(tryTimeoutMs, timeoutMs) };
  const jsm = await jetstreamManager(nc, { ...limits, checkAPI: false });
  const restoreStreams = () => ensureTopology(jsm, options);
  const bus: Bus = {
    service,
    logger,
    connection,
    nc,
    js: jetstream(nc, limits),
    jsm,
    publish: (message, publishOptions) => publishEvent(bus, message, publishOptions),
    publishAll: (events, window = 256) => publishEvents(bus, events, window),
    lastEvent: (stream, subject, lastOptions) => lastEvent(bus, stream, subject, lastOptions),
    ask: (request, askOptions) => ask({ connection, logger, restoreStreams }, request, { timeoutMs, ...askOptions }),
    [Symbol.asyncDispose]: () => connection.close(),
  };
  try {
    const failure = `the streams could not be created at ${nc.getServer()}`;
    const create = () => restoreStreams().catch((thrown) => refuseWithoutJetStream(thrown, failure));
    await ask({ connection, logger }, create, { failure, timeoutMs: topologyTimeoutMs });
  } catch (thrown) {
    await connection.close();
    throw thrown;
  }
  return bus;
}

/** A cluster that has no leader yet answers otherwise: this server will not learn JetStream by waiting. */
function refuseWithoutJetStream(cause: unknown, failure: string): never {
  if (!isStreamMissing(cause)) throw cause;
  const advice = "start it with JetStream (nats-server -js), and enable that for the user's account";
  throw new AppError("CONFIGURATION_INVALID", `${failure}, which runs without JetStream; ${advice}`, { cause });
}

async function lastEvent(bus: Bus, stream: string, subject: string, options: Insistence = {}) {
  const failure = `the last event on ${subject} could not be read from ${stream}`;
  const request = () => bus.jsm.streams.getMessage(stream, { last_by_subj: subject });
  const stored = await bus.ask(request, { failure, details: { stream, subject }, ...options });
  return stored === null ? undefined : eventFromMessage(stored);
}

/**
 * What nats-server itself says of a publication, as spans: since 2.11 a server tells a subject that the message names by which way it came
 * and where it was stored (https://github.com/nats-io/nats-architecture-and-design, ADR-41).
 */
import { createInbox, type NatsConnection } from "@nats-io/nats-core";
import { context, propagation, type TextMapGetter } from "@opentelemetry/api";
import { z } from "zod";
import { AppError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { failSpan, startSpan } from "../telemetry/spans.ts";

/** Header of a message that names the subject to tell. */
export const traceDestinationHeader = "Nats-Trace-Dest";

const event = z.object({
  type: z.string(),
  ts: z.iso.datetime({ offset: true }),
  stream: z.string().optional(),
  name: z.string().optional(),
  error: z.string().optional(),
});

/** A trace message, as far as it is looked at. One comes from each server on the way. */
const traceMessage = z.object({
  server: z.object({ name: z.string(), ver: z.string() }),
  request: z.object({ header: z.record(z.string(), z.array(z.string())) }),
  events: z.array(event).min(1),
});

type TraceMessage = z.output<typeof traceMessage>;

/** Names of the types of events that a publication into a stream has; others go by their type. */
const eventNames: Readonly<Record<string, string>> = { in: "received", js: "stored", eg: "delivered", sm: "mapped" };

/**
 * Listens for what the server says and makes spans of it. Returns the subject that messages must name, or undefined, with a warning, if the
 * server is too old to say anything.
 */
export function followServerTraces(nc: NatsConnection, logger: Logger): string | undefined {
  const version = nc.info?.version ?? "";
  if (!saysTraces(version)) {
    const about = { event: "broker.no_traces", version };
    logger.warn(about, `nats-server ${version} says nothing of its own part in traces; 2.11 or later does`);
    return undefined;
  }
  const destination = createInbox();
  nc.subscribe(destination, {
    callback: (failure, message) => {
      if (failure !== null) return;
      try {
        writeSpan(traceMessage.parse(message.json()));
      } catch (error) {
        logger.debug({ event: "broker.odd_trace", error }, "a trace message of the server was not understood");
      }
    },
  });
  return destination;
}

/** The server writes names of headers in a form of its own. */
const getter: TextMapGetter<TraceMessage["request"]["header"]> = {
  keys: Object.keys,
  get: (header, key) => Object.entries(header).find(([name]) => name.toLowerCase() === key)?.[1][0],
};

function saysTraces(version: string): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return major > 2 || (major === 2 && minor >= 11);
}

/** A span from the first event to the last, under the publication's. */
function writeSpan({ server, request, events }: TraceMessage): void {
  const times = events.map(({ ts }) => Date.parse(ts));
  const stream = events.find((each) => each.stream !== undefined)?.stream;
  const parent = propagation.extract(context.active(), request.header, getter);
  const span = startSpan("nats-server", {
    parent,
    startTimeMs: Math.min(...times),
    attributes: {
      "messaging.system": "nats",
      "messaging.system.name": "nats",
      "millrace.nats.server_name": server.name,
      "millrace.nats.server_version": server.ver,
      ...(stream !== undefined && { "millrace.nats.stream": stream }),
    },
  });
  for (const [index, { type }] of events.entries()) span.addEvent(eventNames[type] ?? type, times[index]);
  const failed = events.find(({ error }) => error);
  if (failed !== undefined) failSpan(span, new AppError("BROKER_UNAVAILABLE", `nats-server: ${failed.error}`));
  span.end(Math.max(...times));
}

import type { Message } from "@bufbuild/protobuf";
import type { EventOptions } from "../../gen/millrace/v1/options_pb.ts";
import { AppError } from "../errors.ts";
import { encode } from "../protobuf/encode.ts";
import type { Bus, Published, PublishOptions } from "./bus.ts";
import { type CloudEventAttributes, eventIdFrom, headersFromEvent } from "./cloud-event.ts";
import { eventTypeOf } from "./event-types.ts";
import { measurePublication } from "./metrics.ts";
import { traceDestinationHeader } from "./server-traces.ts";
import {
  eventStream,
  eventSubject,
  predictionStream,
  predictionSubject,
  registryStream,
  registrySubject,
  requireToken,
} from "./subjects.ts";
import { injectTrace, originTraceparent, withSendSpan } from "./tracing.ts";

interface Route {
  readonly stream: string;
  readonly subject: string;
  /** The subject with names in place of ids. */
  readonly template: string;
}

function routeOf({ name, registry, prediction }: EventOptions, { runId, modelName = "" }: PublishOptions): Route {
  if (registry || prediction) requireToken("model name", modelName);
  if (prediction) {
    const subjectOf = (model: string) => predictionSubject(model, name);
    return { stream: predictionStream, subject: subjectOf(modelName), template: subjectOf("{model}") };
  }
  if (registry) {
    return { stream: registryStream, subject: registrySubject(modelName), template: registrySubject("{model}") };
  }
  requireToken("run id", runId);
  return { stream: eventStream, subject: eventSubject(runId, name), template: eventSubject("{run}", name) };
}

/** Publishes one event; see {@link Bus.publish}. */
export async function publishEvent(bus: Bus, message: Message, options: PublishOptions): Promise<Published> {
  const { schema, options: type } = eventTypeOf(message);
  const route = routeOf(type, options);
  const { runId, cause, key, expectedLastSequence, signal, patient = false } = options;
  const id = eventIdFrom(cause?.id ?? runId, type.name, key);
  const payload = encode(schema, message);
  // What is told of predictions names the run that trained the model, but is no part of it.
  const ofRun = type.prediction ? "" : runId;
  const sent = { ...route, id, type: message.$typeName, source: bus.service, runId: ofRun };
  return withSendSpan(sent, async () => {
    const event: CloudEventAttributes = {
      id,
      source: bus.service,
      type: message.$typeName,
      time: new Date(),
      correlationId: runId,
      causationId: cause?.id ?? "",
      originTraceparent: cause?.originTraceparent || originTraceparent(),
    };
    const expect = {
      streamName: route.stream,
      ...(expectedLastSequence === undefined ? {} : { lastSubjectSequence: expectedLastSequence }),
    };
    const publishOnce = () => {
      const headers = headersFromEvent(event);
      injectTrace(headers);
      if (bus.traceDestination !== undefined) headers.set(traceDestinationHeader, bus.traceDestination);
      return bus.js.publish(route.subject, payload, { msgID: id, headers, expect });
    };
    const failure = `event ${type.name} on ${route.subject} could not be stored in ${route.stream}`;
    const details = { subject: route.subject, stream: route.stream, event: id };
    const store = () => bus.ask(publishOnce, { failure, details, signal, patient });
    const { seq, duplicate } = await measurePublication(route.template, store);
    return { id, sequence: seq, duplicate };
  });
}

/** Publishes many events; see {@link Bus.publishAll}. */
export async function publishEvents(
  bus: Bus,
  events: Iterable<readonly [Message, PublishOptions]>,
  window: number,
): Promise<Published[]> {
  if (!(window >= 1))
    throw new AppError("INVALID_REQUEST", `a window of ${window} events lets none through; use 1 or more`);
  const results: Promise<Published>[] = [];
  const state = { inFlight: 0, failed: false, slotFree: () => {} };
  const settled = () => {
    state.inFlight--;
    state.slotFree();
  };
  try {
    for (const [message, options] of events) {
      const result = bus.publish(message, options);
      results.push(result);
      state.inFlight++;
      result.then(settled, () => {
        state.failed = true;
        settled();
      });
      if (state.inFlight >= window) {
        await new Promise<void>((resolve) => {
          state.slotFree = resolve;
        });
      }
      if (state.failed) break;
    }
  } finally {
    await Promise.allSettled(results);
  }
  return Promise.all(results);
}

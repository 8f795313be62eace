import { setTimeout as delay } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import type { StoredMsg } from "@nats-io/jetstream";
import { type DatasetPrepared, DatasetPreparedSchema, RunRequestedSchema } from "../../gen/millrace/v1/events_pb.ts";
import { type Bus, type BusOptions, openBus } from "../../lib/bus/bus.ts";
import { eventFromMessage, type ReceivedEvent } from "../../lib/bus/cloud-event.ts";
import type { Stage } from "../../lib/bus/stage.ts";
import { eventStream, eventSubject } from "../../lib/bus/subjects.ts";
import { createLogger } from "../../lib/log.ts";
import type { TestNats } from "./nats-server.ts";

/** A bus on a test's server. Take it with `await using`, so that it closes before the server stops. */
export function openTestBus(nats: Pick<TestNats, "url">, options: Partial<BusOptions> = {}): Promise<Bus> {
  const service = options.service ?? "tests";
  const logger = createLogger({ service, level: process.env.TEST_LOG === "1" ? "debug" : "silent" });
  return openBus({ url: nats.url, service, logger, ...options });
}

/** Asks every few milliseconds until the answer is something other than undefined or false; fails at the deadline. */
export async function eventually<T>(
  what: string,
  check: () => T | Promise<T>,
  deadlineMs = 15_000,
): Promise<Exclude<T, undefined | false>> {
  for (const end = Date.now() + deadlineMs; ; await delay(10)) {
    const answer = await check();
    if (answer !== undefined && answer !== false) return answer as Exclude<T, undefined | false>;
    if (Date.now() > end) throw new Error(`not within ${deadlineMs} ms: ${what}`);
  }
}

/** Every message that a stream holds on a subject, read one by one; while the server is away it waits. */
export async function storedMessages(bus: Bus, subject: string, stream: string = eventStream): Promise<StoredMsg[]> {
  const found: StoredMsg[] = [];
  for (let seq = 1; ; ) {
    const query = { seq, next_by_subj: subject };
    const request = () => bus.jsm.streams.getMessage(stream, query);
    const message = await bus.ask(request, { failure: `${subject} could not be read` });
    if (message === null) return found;
    found.push(message);
    seq = message.seq + 1;
  }
}

/** The same as events. */
export async function storedEvents(bus: Bus, subject: string, stream: string = eventStream): Promise<ReceivedEvent[]> {
  return (await storedMessages(bus, subject, stream)).map(eventFromMessage);
}

/** Asks for a run, as the pipeline service does. */
export function requestRun(bus: Bus, runId: string) {
  return bus.publish(create(RunRequestedSchema, { spec: { modelName: runId } }), { runId });
}

type TestStage = Stage<typeof RunRequestedSchema>;

/** What became of a run in the test stage. */
export function outcomes(bus: Bus, runId: string): Promise<ReceivedEvent[]> {
  return storedEvents(bus, eventSubject(runId, "dataset.prepared"));
}

/** The test stage's consumer, as the server sees it. */
export function stageConsumer(bus: Bus) {
  return bus.jsm.consumers.info(eventStream, "ingestion");
}

/** Whether the test stage has nothing left to do. */
export async function isSettled(bus: Bus): Promise<boolean> {
  const { num_pending, num_ack_pending } = await stageConsumer(bus);
  return num_pending === 0 && num_ack_pending === 0;
}

/** The outcome of the test stage. */
export function prepared(digest = "d"): DatasetPrepared {
  return create(DatasetPreparedSchema, { dataset: { digest } });
}

/** A stage from "run.requested" to "dataset.prepared", with short times. */
export function testStage(handle: TestStage["handle"], options: Partial<TestStage> = {}): TestStage {
  return {
    name: "ingestion",
    consumes: RunRequestedSchema,
    outcomes: [DatasetPreparedSchema],
    ackWaitMs: 1_000,
    maxAttempts: 3,
    retryDelaysMs: [50, 100],
    handle,
    ...options,
  };
}

export interface Random {
  /** A number from 0 to below 1. */
  next(): number;
  /** An integer from 0 to below `end`. */
  below(end: number): number;
}

/** Pseudo-random numbers (mulberry32) that a seed repeats. */
export function randomFrom(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return { next, below: (end) => Math.floor(next() * end) };
}

/** Runs a test with a seed, TEST_SEED or a new one, and names it in what the test throws. */
export async function withSeed<T>(test: (random: Random) => T | Promise<T>): Promise<T> {
  const seed = Number(process.env.TEST_SEED ?? Math.floor(Math.random() * 2 ** 32));
  try {
    return await test(randomFrom(seed));
  } catch (thrown) {
    // The test runner does not print causes.
    const reason = thrown instanceof Error ? thrown.stack : String(thrown);
    throw new Error(`failed with TEST_SEED=${seed}: ${reason}`, { cause: thrown });
  }
}

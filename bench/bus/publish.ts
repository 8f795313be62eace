/**
 * What the bus costs on this machine: publishing in a window against one event after another, and the time from a
 * publication to the start of its handler. Starts a nats-server of its own on a temporary folder; nothing else is
 * needed. Five runs of each, by turns, so that what else the machine does meets all of them.
 *
 *     node --import tsx bench/bus/publish.ts
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { create, type Message } from "@bufbuild/protobuf";
import { DatasetPreparedSchema, DatasetProgressedSchema, RunRequestedSchema } from "../../gen/millrace/v1/events_pb.ts";
import { type Bus, openBus, type PublishOptions } from "../../lib/bus/bus.ts";
import { startStage } from "../../lib/bus/stage.ts";
import { createLogger } from "../../lib/log.ts";
import { findNatsServer } from "../../lib/nats-server/server-binary.ts";
import { launchNatsServer } from "../../lib/nats-server/server-process.ts";
import { machine, quantile, reportHeader, reportLine } from "../report.ts";

const rounds = 5;
const windowedEvents = 5_000;
const sequentialEvents = 1_000;
const handledEvents = 300;
/** Pause between publications when latency is measured: a stage takes one message after another, none shall queue. */
const latencyPauseMs = 5;

function progress(runId: string, count: number): (readonly [Message, PublishOptions])[] {
  return Array.from({ length: count }, (_, index) => [
    create(DatasetProgressedSchema, { progress: { done: BigInt(index) } }),
    { runId, key: String(index) },
  ]);
}

async function perSecond(count: number, work: () => Promise<unknown>): Promise<number> {
  const before = performance.now();
  await work();
  return (count * 1_000) / (performance.now() - before);
}

function windowed(bus: Bus, round: number): Promise<number> {
  const events = progress(`windowed-${round}`, windowedEvents);
  return perSecond(windowedEvents, () => bus.publishAll(events));
}

function oneByOne(bus: Bus, round: number): Promise<number> {
  const events = progress(`sequential-${round}`, sequentialEvents);
  return perSecond(sequentialEvents, async () => {
    for (const [message, options] of events) await bus.publish(message, options);
  });
}

/** Milliseconds from the call that publishes to the call of the handler, sorted. Both are in this process. */
async function latencies(publisher: Bus, consumer: Bus, round: number): Promise<number[]> {
  const sent = new Map<string, number>();
  const taken: number[] = [];
  const stage = startStage(consumer, {
    name: "bench",
    consumes: RunRequestedSchema,
    outcomes: [DatasetPreparedSchema],
    handle: async (_, { runId }) => {
      const sentMs = sent.get(runId);
      if (sentMs !== undefined) taken.push(performance.now() - sentMs);
      return create(DatasetPreparedSchema);
    },
  });
  while (!stage.consuming()) await delay(5);
  for (let index = 0; index < handledEvents; index++) {
    const runId = `handled-${round}-${index}`;
    sent.set(runId, performance.now());
    await publisher.publish(create(RunRequestedSchema), { runId });
    while (taken.length <= index) await delay(1);
    await delay(latencyPauseMs);
  }
  await stage.stop();
  return taken.sort((a, b) => a - b);
}

function report(name: string, unit: string, values: readonly number[], digits: number): void {
  console.log(reportLine(name, unit, values, digits));
}

async function main(): Promise<void> {
  const storeFolder = await mkdtemp(join(tmpdir(), "millrace-bench-"));
  const binary = await findNatsServer({ env: process.env, onProgress: (line) => console.error(line) });
  const server = await launchNatsServer({ binary, storeFolder });
  const logger = createLogger({ service: "bench", level: "silent" });
  try {
    await using publisher = await openBus({ url: server.url, service: "bench", logger });
    await using consumer = await openBus({ url: server.url, service: "bench-stage", logger });
    const rates = { windowed: [] as number[], oneByOne: [] as number[] };
    const times = { p50: [] as number[], p99: [] as number[] };
    await windowed(publisher, -1); // warms up the compiler
    await oneByOne(publisher, -1);
    for (let round = 0; round < rounds; round++) {
      rates.windowed.push(await windowed(publisher, round));
      rates.oneByOne.push(await oneByOne(publisher, round));
      const sorted = await latencies(publisher, consumer, round);
      times.p50.push(quantile(sorted, 0.5));
      times.p99.push(quantile(sorted, 0.99));
    }
    console.log(`nats-server ${server.version}, file storage, one server, ${rounds} runs`);
    console.log(`${machine()}\n\n${reportHeader}`);
    report("publish, 256 in flight", "events/s", rates.windowed, 0);
    report("publish, one after another", "events/s", rates.oneByOne, 0);
    report(
      "ratio",
      "times",
      rates.windowed.map((rate, round) => rate / (rates.oneByOne[round] ?? 1)),
      1,
    );
    report("publish to handler, p50", "ms", times.p50, 2);
    report("publish to handler, p99", "ms", times.p99, 2);
  } finally {
    await server.stop();
    await rm(storeFolder, { recursive: true, force: true });
  }
}

await main();

/** Measuring one server under one load, and what every scenario is given to do that with. */
import { setTimeout as delay } from "node:timers/promises";
import { quantile } from "../report.ts";
import type { SampleImage } from "./images.ts";
import type { Arrivals, Generator, LoadReport, Target } from "./load.ts";
import { connect } from "./load-client.ts";
import type { Hub } from "./millrace.ts";
import type { ServedModel } from "./model.ts";
import { residentMbOf, type Usage, usageOf } from "./processes.ts";
import type { RunningServer } from "./servers.ts";
import type { Column } from "./table.ts";
import { targetOf, type Wire } from "./wires.ts";

export interface BenchOptions {
  readonly network: string;
  readonly rounds: number;
  /** Of one measurement. */
  readonly seconds: number;
  /** Load before the first measurement of a server: code is compiled while it runs. */
  readonly warmUpSeconds: number;
  /** Requests under way at a time, where a scenario tries several. */
  readonly inFlight: readonly number[];
  readonly swaps: number;
}

export interface Bench {
  readonly options: BenchOptions;
  readonly home: string;
  readonly images: readonly SampleImage[];
  readonly model: ServedModel;
  /** The probabilities of each image by ONNX Runtime alone. */
  readonly expected: readonly (readonly number[])[];
  readonly hub: Hub;
  readonly generator: Generator;
}

/** Requests under way wherever a scenario takes one number: enough to fill batches. */
export const usualInFlight = 64;

const memoryIntervalMs = 500;

/** Figures of one measurement. Rates are per second, times in milliseconds, processor use in processors, memory in MB. */
export interface Figures extends Record<string, number> {
  readonly answered: number;
  readonly refused: number;
  readonly failed: number;
  readonly p50: number;
  readonly p99: number;
  readonly refusedP99: number;
  readonly late: number;
  /** The server's processor time over its answers, in microseconds. */
  readonly cpuMicros: number;
  readonly serverCpu: number;
  readonly generatorCpu: number;
  readonly memoryBefore: number;
  readonly memoryMost: number;
  readonly memoryAfter: number;
}

/** The columns that most tables have. */
export const usualColumns: readonly Column[] = [
  { key: "answered", title: "answers/s", digits: 0 },
  { key: "p50", title: "p50 ms", digits: 1 },
  { key: "p99", title: "p99 ms", digits: 1 },
  { key: "failed", title: "failed", digits: 0 },
  { key: "cpuMicros", title: "CPU µs/answer", digits: 0 },
  { key: "serverCpu", title: "server CPUs", digits: 2 },
  { key: "generatorCpu", title: "generator CPUs", digits: 2 },
];

export interface Measurement {
  readonly server: RunningServer;
  readonly wire: Wire;
  readonly arrivals: Arrivals;
  /** Default: as the options say. */
  readonly seconds?: number;
  /** Done while the load is on, which then ends with it. */
  readonly meanwhile?: () => Promise<void>;
}

export async function measure({ generator, images, options }: Bench, measurement: Measurement): Promise<Figures> {
  const { server, wire, arrivals, meanwhile, seconds = options.seconds } = measurement;
  const target = targetOf(wire, server.address, images);
  const before = await usageOf(server.pid);
  using memory = await watchMemory(before);
  const load = generator.begin({
    target,
    arrivals,
    seconds: meanwhile === undefined ? seconds : Number.POSITIVE_INFINITY,
  });
  if (meanwhile !== undefined) await meanwhile().finally(load.stop);
  const report = await load.report;
  const after = await usageOf(server.pid);
  return figuresOf(report, { before, after, memoryMost: memory.mostMb() });
}

/** Load that is not measured. */
export async function warmUp(bench: Bench, server: RunningServer, wire: Wire): Promise<void> {
  const arrivals = { kind: "closed", inFlight: usualInFlight } as const;
  await measure(bench, { server, wire, arrivals, seconds: bench.options.warmUpSeconds });
}

interface ServerUse {
  readonly before: Usage;
  readonly after: Usage;
  readonly memoryMost: number;
}

function figuresOf(report: LoadReport, { before, after, memoryMost }: ServerUse): Figures {
  const { answeredMs, refusedMs, lateMs, failures, seconds, cpuSeconds } = report;
  const quantileOf = (sorted: Float64Array, share: number): number => quantile([...sorted], share);
  const serverSeconds = after.cpuSeconds - before.cpuSeconds;
  for (const [reason, times] of Object.entries(failures)) console.error(`${times} requests failed: ${reason}`);
  return {
    answered: answeredMs.length / seconds,
    refused: refusedMs.length / seconds,
    failed: Object.values(failures).reduce((sum, times) => sum + times, 0),
    p50: quantileOf(answeredMs, 0.5),
    p99: quantileOf(answeredMs, 0.99),
    refusedP99: quantileOf(refusedMs, 0.99),
    late: quantileOf(lateMs, 0.99),
    cpuMicros: (1e6 * serverSeconds) / answeredMs.length,
    serverCpu: serverSeconds / seconds,
    generatorCpu: cpuSeconds / seconds,
    memoryBefore: before.memoryMb,
    memoryMost: Math.max(memoryMost, after.memoryMb),
    memoryAfter: after.memoryMb,
  };
}

/** Notes the most memory that a server has had, until disposed of: what it had before, and what its processes have grown by since. */
async function watchMemory({ pids, memoryMb }: Usage) {
  const over = new AbortController();
  const residentMb = await residentMbOf(pids);
  let mostMb = memoryMb;
  const watch = async (): Promise<void> => {
    while (!over.signal.aborted) {
      mostMb = Math.max(mostMb, memoryMb + (await residentMbOf(pids)) - residentMb);
      // Cut short when it is over.
      await delay(memoryIntervalMs, undefined, { signal: over.signal }).catch(() => undefined);
    }
  };
  void watch();
  return { mostMb: () => mostMb, [Symbol.dispose]: () => over.abort() };
}

/**
 * How far from ONNX Runtime's own an answer's probabilities may be, because decoders round differently, and because other libraries
 * calculate in another order.
 */
const tolerance = 0.02;

/** Asks for a few images and throws if a server does not say of them what ONNX Runtime does: only the same work is compared. */
export async function checkAnswers({ images, expected }: Bench, { address }: RunningServer, wire: Wire): Promise<void> {
  const target: Target = targetOf(wire, address, images);
  const client = await connect(target, 1);
  try {
    for (const [index, probabilities] of expected.entries()) {
      const outcome = await client.send(index);
      if (outcome.kind !== "answered")
        throw new Error(`${target.url}: ${outcome.kind} ${"reason" in outcome ? outcome.reason : ""}`);
      const given = wire.probabilities(outcome.body);
      const right = probabilities.every((value, at) => Math.abs(value - (given[at] ?? Number.NaN)) <= tolerance);
      if (!right) throw new Error(`${target.url} says ${given} of image ${index}, ONNX Runtime ${probabilities}`);
    }
  } finally {
    await client.close();
  }
}

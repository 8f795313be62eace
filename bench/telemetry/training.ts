/**
 * What telemetry costs a training: training services that differ in nothing else train the same network on the same pictograms with the
 * same seed, at the same time, so that a slow moment of the machine meets all of them. Each has its own broker and artifacts, since
 * what is stored already costs nothing to store. With telemetry they have what `npm start` gives them, metrics and all traces in
 * files. Epochs are short, so that there is much to tell for little work. One of them is there twice: how far those two are apart is what the machine adds.
 *
 *     node --import tsx bench/telemetry/training.ts [--rounds 15] [--epochs 8] [--limit 100] [--network small]
 *
 * Processor time is read from Linux's /proc.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { create } from "@bufbuild/protobuf";
import { type Dataset, DatasetSpecSchema } from "../../gen/millrace/v1/dataset_pb.ts";
import { DatasetPreparedSchema, type ModelTrained, type RunFailed } from "../../gen/millrace/v1/events_pb.ts";
import { openFolderStore } from "../../lib/artifacts/folder-store.ts";
import { type Bus, openBus } from "../../lib/bus/bus.ts";
import { eventStream, eventSubject } from "../../lib/bus/subjects.ts";
import { prepareDataset } from "../../lib/images/prepare-dataset.ts";
import { createLogger } from "../../lib/log.ts";
import { findNatsServer } from "../../lib/nats-server/server-binary.ts";
import { launchNatsServer } from "../../lib/nats-server/server-process.ts";
import { machine, reportHeader, reportLine } from "../report.ts";
import { usageOf } from "../serving/processes.ts";
import { launch } from "../serving/servers.ts";
import { createRows, ratios, spread } from "../serving/table.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "15" },
    epochs: { type: "string", default: "8" },
    limit: { type: "string", default: "100" },
    network: { type: "string", default: "small" },
  },
});
const rounds = Number(values.rounds);
const wantedRatio = 1.02;
const pollMs = 20;
const root = join(import.meta.dirname, "../..");
const logger = createLogger({ service: "bench", level: "warn" });

const off = "no telemetry";
const again = "no telemetry, once more";
const on = "metrics, all traces in files";

/** Variables of the training service. */
const settings = (home: string): Readonly<Record<string, NodeJS.ProcessEnv>> => ({
  [off]: { OTEL_SDK_DISABLED: "true" },
  [again]: { OTEL_SDK_DISABLED: "true" },
  [on]: { MILLRACE_TRACE_DIR: join(home, "traces") },
});

interface Subject extends AsyncDisposable {
  readonly name: string;
  /** Trains once, with this seed. */
  train(seed: number): Promise<{ readonly wallSeconds: number; readonly cpuSeconds: number }>;
}

/** A broker, a data set and a training service. */
async function start(home: string, [name, env]: [string, NodeJS.ProcessEnv]): Promise<Subject> {
  const folder = await mkdtemp(join(home, "subject-"));
  const artifactFolder = join(folder, "artifacts");
  const binary = await findNatsServer({ env: process.env, onProgress: console.error });
  const nats = await launchNatsServer({ binary, storeFolder: join(folder, "nats") });
  const bus = await openBus({ url: nats.url, service: "bench", logger });
  const dataset = await prepare(artifactFolder, folder);
  const service = launch({
    command: process.execPath,
    args: ["--import", "tsx", join(root, "services/training/main.ts")],
    cwd: root,
    env: {
      ...process.env,
      MILLRACE_NATS_URL: nats.url,
      MILLRACE_ARTIFACTS: `file:${artifactFolder}`,
      MILLRACE_TRAINING_PORT: "0",
      ...env,
    },
  });
  const { pid = 0 } = service.child;
  return {
    name,
    train: async (seed) => {
      const training = { network: values.network, epochs: Number(values.epochs), seed };
      const runId = `seed-${seed}`;
      const before = await usageOf(pid);
      await bus.publish(create(DatasetPreparedSchema, { dataset, spec: { training } }), { runId });
      const { durationSeconds } = await Promise.race([trained(bus, runId), service.ended]);
      const after = await usageOf(pid);
      return { wallSeconds: durationSeconds, cpuSeconds: after.cpuSeconds - before.cpuSeconds };
    },
    [Symbol.asyncDispose]: async () => {
      await service[Symbol.asyncDispose]();
      await bus[Symbol.asyncDispose]();
      await nats.stop();
    },
  };
}

async function prepare(artifactFolder: string, cacheFolder: string): Promise<Dataset> {
  await using artifacts = await openFolderStore(artifactFolder);
  const spec = create(DatasetSpecSchema, { source: "pictograms", limitPerClass: Number(values.limit) });
  const { signal } = new AbortController();
  return prepareDataset(spec, { artifacts, cacheFolder, signal, onProgress: () => undefined });
}

/** Waits for the end of a run's training. */
async function trained(bus: Bus, runId: string): Promise<ModelTrained> {
  for (;;) {
    const failed = await bus.lastEvent(eventStream, eventSubject(runId, "run.failed"));
    if (failed !== undefined) throw new Error(`${runId}: ${(failed.message as RunFailed).message}`);
    const done = await bus.lastEvent(eventStream, eventSubject(runId, "model.trained"));
    if (done !== undefined) return done.message as ModelTrained;
    await delay(pollMs);
  }
}

async function measure(subjects: readonly Subject[]): Promise<Rows> {
  // Code is compiled during the first training.
  for (const { train } of subjects) await train(0);
  const rows = createRows();
  for (let round = 1; round <= rounds; round++) {
    const measures = await Promise.all(
      subjects.map(async ({ name, train }) => ({ name, figures: await train(round) })),
    );
    for (const { name, figures } of measures) rows.add(name, figures);
  }
  return rows;
}

type Rows = ReturnType<typeof createRows>;

function report(rows: Rows): void {
  const { network, epochs, limit } = values;
  console.log(`trainings of ${network}, ${epochs} epochs of ${limit} images a class at most, ${rounds} rounds`);
  console.log(`${machine()}\n\n${reportHeader}`);
  for (const { name, figures } of rows.all()) {
    console.log(reportLine(name, "s", figures.wallSeconds ?? [], 2));
    console.log(reportLine("", "s of processor time", figures.cpuSeconds ?? [], 2));
  }
  console.log();
  for (const name of [again, on]) {
    const of = (key: string) => spread(ratios(rows.values(name, key), rows.values(off, key)), 3);
    console.log(`${name}: ${of("wallSeconds")} times the time without, ${of("cpuSeconds")} times the processor time`);
  }
  console.log(`wanted of telemetry: at most ${wantedRatio} times`);
}

// Servers are in process groups of their own and end with this process, if it ends by itself.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1));

const home = await mkdtemp(join(tmpdir(), "millrace-bench-"));
const subjects: Subject[] = [];
try {
  for (const setting of Object.entries(settings(home))) subjects.push(await start(home, setting));
  report(await measure(subjects));
} finally {
  for (const subject of subjects) await subject[Symbol.asyncDispose]();
  await rm(home, { recursive: true, force: true });
}

/**
 * How long the stages of a whole run take and how good its model is, as a newcomer's `npm start` runs it: real processes,
 * a broker of its own, everything in a temporary folder. Each run has another seed, for data set and training.
 *
 *     node --import tsx bench/pipeline/runs.ts [--runs 5] [--dataset pictograms] [--network small] [--epochs N]
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { followRun } from "../../cli/follow-run.ts";
import { startServices } from "../../cli/start/services.ts";
import { foldersIn } from "../../cli/start/session.ts";
import { createMillraceClient, type MillraceClient } from "../../client/client.ts";
import { type Run, RunStatus } from "../../gen/millrace/v1/pipeline_pb.ts";
import { findNatsServer } from "../../lib/nats-server/server-binary.ts";
import { launchNatsServer } from "../../lib/nats-server/server-process.ts";
import { machine, reportHeader, reportLine } from "../report.ts";

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "5" },
    dataset: { type: "string", default: "pictograms" },
    network: { type: "string", default: "small" },
    epochs: { type: "string" },
  },
});
const builtIn = ["pictograms", "cifar10"];
const source = builtIn.includes(values.dataset) ? values.dataset : resolve(values.dataset);
const stages = ["ingestion", "training", "evaluation"];

async function oneRun(pipeline: MillraceClient["pipeline"], seed: number): Promise<Run> {
  const spec = {
    dataset: { source, seed: BigInt(seed) },
    training: {
      network: values.network,
      seed,
      ...(values.epochs === undefined ? {} : { epochs: Number(values.epochs) }),
    },
    gate: { minimumAccuracy: 0 },
    // A model of its own for each run: none is held against another.
    modelName: `seed-${seed}`,
  };
  const { runId } = await pipeline.requestRun({ spec });
  let last: Run | undefined;
  for await (const { run } of followRun(pipeline, runId, new AbortController().signal)) {
    last = run;
  }
  if (last === undefined || last.status === RunStatus.FAILED)
    throw new Error(`run ${runId}: ${last?.failure?.message}`);
  return last;
}

function secondsOf(run: Run, stage: string): number {
  const found = run.stages.find(({ name }) => name === stage);
  if (found?.startedAt === undefined || found.finishedAt === undefined) return Number.NaN;
  return (
    Number(found.finishedAt.seconds - found.startedAt.seconds) + (found.finishedAt.nanos - found.startedAt.nanos) / 1e9
  );
}

function report(name: string, unit: string, values: readonly number[], digits = 1): void {
  const line = reportLine(name, unit, values, digits);
  if (line !== undefined) console.log(line);
}

const home = await mkdtemp(join(tmpdir(), "millrace-bench-"));
const binary = await findNatsServer({ env: process.env, onProgress: (line) => console.error(line) });
const server = await launchNatsServer({ binary, storeFolder: join(home, "nats") });
try {
  const folders = foldersIn(home);
  await using services = await startServices({
    natsUrl: server.url,
    folders,
    env: process.env,
    onRestart: console.error,
  });
  await services.ready();
  const millrace = createMillraceClient({ baseUrl: services.urls.pipeline });
  const runs: Run[] = [];
  for (let seed = 0; seed < Number(values.runs); seed++) runs.push(await oneRun(millrace.pipeline, seed));
  millrace.close();
  console.log(`${values.dataset}, network ${values.network}, nats-server ${server.version}`);
  console.log(`${machine()}\n\n${reportHeader}`);
  for (const stage of stages)
    report(
      stage,
      "s",
      runs.map((run) => secondsOf(run, stage)),
    );
  report(
    "test accuracy",
    "%",
    runs.map(({ evaluation }) => (evaluation?.accuracy ?? Number.NaN) * 100),
  );
  report(
    "training, last epoch",
    "images/s",
    runs.map(({ lastEpoch }) => lastEpoch?.imagesPerSecond ?? Number.NaN),
    0,
  );
  report(
    "evaluation",
    "images/s",
    runs.map(({ evaluation }) => evaluation?.imagesPerSecond ?? Number.NaN),
    0,
  );
} finally {
  await server.stop();
  await rm(home, { recursive: true, force: true });
}

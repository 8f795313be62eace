/**
 * Whether the training service answers while it trains: gRPC health checks of the real service process, one every 20 ms whether or
 * not the last was answered, while it trains `paper` on the pictograms and while it has nothing to do, by turns. Starts
 * a nats-server and all services as `npm start` does. A round's training is long enough for several epochs with their
 * checkpoints, and is cancelled then.
 *
 *     node --import tsx bench/nn/responsiveness.ts [--rounds 5] [--seconds 20]
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { followRun } from "../../cli/follow-run.ts";
import { startServices } from "../../cli/start/services.ts";
import { foldersIn } from "../../cli/start/session.ts";
import { createMillraceClient, type MillraceClient } from "../../client/client.ts";
import { AppError } from "../../lib/errors.ts";
import { findNatsServer } from "../../lib/nats-server/server-binary.ts";
import { launchNatsServer } from "../../lib/nats-server/server-process.ts";
import { machine, quantile, reportHeader, reportLine } from "../report.ts";

const limitMs = 50;
const intervalMs = 20;
/** After a cancellation the step that is being done ends first. */
const settleMs = 3_000;
/** Few enough that an epoch takes seconds. */
const limitPerClass = 40;

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "5" }, seconds: { type: "string", default: "20" } },
});
const measureMs = Number(values.seconds) * 1000;

/** Milliseconds that each answer took, sorted. */
async function answers(health: MillraceClient["health"]): Promise<number[]> {
  const taken: number[] = [];
  const asked: Promise<void>[] = [];
  const ask = async (): Promise<void> => {
    const beforeMs = performance.now();
    await health.check({});
    taken.push(performance.now() - beforeMs);
  };
  const timer = setInterval(() => {
    const answer = ask();
    // A failure is thrown when all are awaited, not at once, past the end of the services.
    answer.catch(() => undefined);
    asked.push(answer);
  }, intervalMs);
  await delay(measureMs);
  clearInterval(timer);
  await Promise.all(asked);
  return taken.sort((a, b) => a - b);
}

interface Clients {
  readonly pipeline: MillraceClient["pipeline"];
  readonly health: MillraceClient["health"];
}

/** The answers during a training, and the epochs that it completed meanwhile. */
async function answersInTraining({ pipeline, health }: Clients, round: number) {
  const dataset = { source: "pictograms", limitPerClass };
  const training = { network: "paper", epochs: 1_000, seed: round + 1 };
  const { runId } = await pipeline.requestRun({ spec: { dataset, training, modelName: `round-${round}` } });
  await trainingStarted(pipeline, runId);
  const taken = await answers(health);
  const { run } = await pipeline.getRun({ runId });
  await pipeline.cancelRun({ runId, reason: "measured" });
  await delay(settleMs);
  return { taken, epochs: run?.lastEpoch?.epoch ?? 0 };
}

async function trainingStarted(pipeline: Clients["pipeline"], runId: string): Promise<void> {
  for await (const { event, run } of followRun(pipeline, runId, new AbortController().signal)) {
    if (event.event.case === "trainingStarted") return;
    if (run.failure !== undefined) throw new Error(`run ${runId}: ${run.failure.message}`);
  }
  throw new Error(`run ${runId} ended before its training started`);
}

async function measure(clients: Clients): Promise<void> {
  const idle: number[][] = [];
  const busy: number[][] = [];
  const epochs: number[] = [];
  await answers(clients.health); // warms up both ends
  for (let round = 0; round < Number(values.rounds); round++) {
    idle.push(await answers(clients.health));
    const training = await answersInTraining(clients, round);
    busy.push(training.taken);
    epochs.push(training.epochs);
  }
  console.log(`health checks of the training service, one every ${intervalMs} ms for ${values.seconds} s a round`);
  console.log(`${machine()}\n\n${reportHeader}`);
  for (const [state, rounds] of Object.entries({ idle, training: busy })) {
    for (const [name, share] of [
      ["p50", 0.5],
      ["p99", 0.99],
      ["max", 1],
    ] as const) {
      const figures = rounds.map((sorted) => quantile(sorted, share));
      console.log(reportLine(`${state}, ${name}`, "ms", figures, 1));
    }
  }
  console.log(reportLine("epochs with their checkpoints", "a round", epochs, 0));
  const worst = Math.max(...busy.map((sorted) => quantile(sorted, 0.99)));
  console.log(`\np99 while training is ${worst < limitMs ? "below" : "NOT BELOW"} ${limitMs} ms in every round`);
  if (worst >= limitMs) process.exitCode = 1;
}

async function main(): Promise<void> {
  const home = await mkdtemp(join(tmpdir(), "millrace-bench-"));
  const binary = await findNatsServer({ env: process.env, onProgress: (line) => console.error(line) });
  const server = await launchNatsServer({ binary, storeFolder: join(home, "nats") });
  try {
    const onRestart = (message: string): void => console.error(message);
    const options = { natsUrl: server.url, folders: foldersIn(home), env: process.env, onRestart };
    await using services = await startServices(options);
    await services.ready();
    const pipeline = createMillraceClient({ baseUrl: services.urls.pipeline });
    const training = createMillraceClient({ baseUrl: services.urls.training });
    await measure({ pipeline: pipeline.pipeline, health: training.health });
    pipeline.close();
    training.close();
  } finally {
    await server.stop();
    await rm(home, { recursive: true, force: true });
  }
}

try {
  await main();
} catch (thrown) {
  console.error(AppError.from(thrown).message);
  process.exitCode = 1;
}

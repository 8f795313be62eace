/**
 * How soon the training stage lets go of a run that is cancelled in the middle of a step of native code, which nothing interrupts: real
 * processes, a broker of its own, everything in a temporary folder.
 *
 *     node --import tsx bench/pipeline/cancellation.ts [--runs 3] [--network paper] [--batch-size 512]
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { startServices } from "../../cli/start/services.ts";
import { foldersIn } from "../../cli/start/session.ts";
import { createMillraceClient, type MillraceClient } from "../../client/client.ts";
import { type Bus, openBus } from "../../lib/bus/bus.ts";
import { eventStream } from "../../lib/bus/subjects.ts";
import { createLogger } from "../../lib/log.ts";
import { findNatsServer } from "../../lib/nats-server/server-binary.ts";
import { launchNatsServer } from "../../lib/nats-server/server-process.ts";
import { machine, reportHeader, reportLine } from "../report.ts";

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "3" },
    network: { type: "string", default: "paper" },
    "batch-size": { type: "string", default: "512" },
  },
});
const batchSize = Number(values["batch-size"]);
const pollMs = 10;

interface Cancelled {
  readonly stepSeconds: number;
  readonly releasedSeconds: number;
}

async function cancelOne(pipeline: MillraceClient["pipeline"], bus: Bus): Promise<Cancelled> {
  const training = { network: values.network, hyperparameters: { batchSize, epochs: 100 } };
  const { runId } = await pipeline.requestRun({ spec: { dataset: { source: "pictograms" }, training } });
  for await (const { event } of pipeline.watchRun({ runId })) {
    if (event?.event.case !== "trainingProgressed") continue;
    const startedMs = performance.now();
    await pipeline.cancelRun({ runId, reason: "a measurement" });
    while ((await bus.jsm.consumers.info(eventStream, "training")).num_ack_pending > 0) await delay(pollMs);
    const releasedSeconds = (performance.now() - startedMs) / 1000;
    return { stepSeconds: batchSize / (event.event.value.progress?.epoch?.imagesPerSecond ?? 0), releasedSeconds };
  }
  throw new Error(`run ${runId} ended before it could be cancelled`);
}

const home = await mkdtemp(join(tmpdir(), "millrace-bench-"));
const binary = await findNatsServer({ env: process.env, onProgress: (line) => console.error(line) });
const server = await launchNatsServer({ binary, storeFolder: join(home, "nats") });
try {
  const started = { natsUrl: server.url, folders: foldersIn(home), env: process.env, onRestart: console.error };
  await using services = await startServices(started);
  await services.ready();
  await using bus = await openBus({ url: server.url, service: "bench", logger: createLogger({ service: "bench" }) });
  const millrace = createMillraceClient({ baseUrl: services.urls.pipeline });
  const results: Cancelled[] = [];
  for (let run = 0; run < Number(values.runs); run++) results.push(await cancelOne(millrace.pipeline, bus));
  millrace.close();
  console.log(`network ${values.network}, batch ${batchSize}`);
  console.log(`${machine()}\n\n${reportHeader}`);
  const lines = {
    "a step": results.map(({ stepSeconds }) => stepSeconds),
    "until the run is let go of": results.map(({ releasedSeconds }) => releasedSeconds),
  };
  for (const [name, seconds] of Object.entries(lines)) console.log(reportLine(name, "s", seconds, 2));
} finally {
  await server[Symbol.asyncDispose]();
  await rm(home, { recursive: true, force: true, maxRetries: 5 });
}

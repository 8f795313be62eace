import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { TestContext } from "node:test";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { followRun } from "../../cli/follow-run.ts";
import { type ServiceProcesses, startServices } from "../../cli/start/services.ts";
import { type Folders, foldersIn } from "../../cli/start/session.ts";
import { createMillraceClient, type MillraceClient } from "../../client/client.ts";
import type { RequestRunRequestSchema, Run, RunEvent } from "../../gen/millrace/v1/pipeline_pb.ts";
import type { ServiceName } from "../../lib/config.ts";
import { eventually } from "./bus.ts";
import { startNats, type TestNats } from "./nats-server.ts";
import { tempFolder } from "./temp-folder.ts";

/** A broker and all services as real processes, as `npm start` runs them. */
export interface Platform {
  readonly nats: TestNats;
  readonly folders: Folders;
  readonly services: ServiceProcesses;
  readonly pipeline: MillraceClient["pipeline"];
  readonly registry: MillraceClient["registry"];
  /** What was said about services that died. */
  readonly restarts: readonly string[];
  /** Ends a service with SIGKILL; it is started again. */
  kill(name: ServiceName): Promise<void>;
  /** Resolves when the prediction service answers with this version. */
  answersWith(version: number): Promise<void>;
  /** The events of a run that has ended, those after its end included. */
  events(runId: string): Promise<readonly RunEvent[]>;
  /** Requests a run and follows it to its end. */
  run(request: RunRequest, onEvent?: (event: RunEvent, run: Run) => Promise<void> | void): Promise<FinishedRun>;
}

export type RunRequest = MessageInitShape<typeof RequestRunRequestSchema>;

export interface FinishedRun {
  readonly run: Run;
  /** Each event once, in order. */
  readonly events: readonly RunEvent[];
}

/** A run that takes a few seconds: few images, two epochs, and a gate that lets anything through. */
export const smallRun = {
  dataset: { source: "pictograms", limitPerClass: 20 },
  training: { network: "small", epochs: 2, seed: 7 },
  gate: { minimumAccuracy: 0 },
} as const;

/** Starts everything in a temporary folder and stops it when the test ends. */
export async function startPlatform(t: Pick<TestContext, "after">, env: NodeJS.ProcessEnv = {}): Promise<Platform> {
  let stop = async () => {};
  t.after(() => stop());
  const nats = await startNats(t);
  const folders = foldersIn(await tempFolder(t));
  const restarts: string[] = [];
  const onRestart = (message: string) => void restarts.push(message);
  const services = await startServices({ natsUrl: nats.url, folders, env: { ...process.env, ...env }, onRestart });
  const millrace = createMillraceClient({ baseUrl: services.urls.pipeline });
  const { pipeline, registry } = millrace;
  stop = async () => {
    millrace.close();
    await services[Symbol.asyncDispose]();
  };
  await services.ready();
  return {
    nats,
    folders,
    services,
    pipeline,
    registry,
    restarts,
    kill: (name) => kill(name, folders),
    answersWith: (version) => answersWith(services.urls.prediction, version),
    events: async (runId) => {
      const all: RunEvent[] = [];
      for await (const { event } of pipeline.watchRun({ runId })) if (event !== undefined) all.push(event);
      return all;
    },
    run: (request, onEvent) => runToEnd(pipeline, request, onEvent),
  };
}

async function answersWith(baseUrl: string, version: number): Promise<void> {
  const millrace = createMillraceClient({ baseUrl });
  try {
    await eventually(
      `version ${version} answers`,
      () =>
        millrace.predictions.getModel({}).then(
          ({ model }) => model?.version === version,
          () => false,
        ),
      60_000,
    );
  } finally {
    millrace.close();
  }
}

/** Every line of a service's log names its process. */
async function kill(name: ServiceName, { logs }: Folders): Promise<void> {
  const lines = (await readFile(join(logs, `${name}.jsonl`), "utf8")).trimEnd().split("\n");
  const { pid } = JSON.parse(lines.at(-1) ?? "{}") as { pid?: number };
  if (pid === undefined) throw new Error(`the log of ${name} names no process`);
  process.kill(pid, "SIGKILL");
}

const followDeadlineMs = 240_000;

async function runToEnd(
  pipeline: MillraceClient["pipeline"],
  request: RunRequest,
  onEvent: (event: RunEvent, run: Run) => Promise<void> | void = () => {},
): Promise<FinishedRun> {
  const { runId } = await pipeline.requestRun(request);
  const events: RunEvent[] = [];
  let run: Run | undefined;
  for await (const update of followRun(pipeline, runId, AbortSignal.timeout(followDeadlineMs))) {
    events.push(update.event);
    run = update.run;
    await onEvent(update.event, run);
  }
  if (run === undefined) throw new Error(`run ${runId} had no event`);
  return { run, events };
}

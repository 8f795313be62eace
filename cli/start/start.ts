import { join, relative, resolve } from "node:path";
import { PipelineService, type Run, RunStatus } from "../../gen/millrace/v1/pipeline_pb.ts";
import { AppError } from "../../lib/errors.ts";
import { findNatsServer, userCacheFolder } from "../../lib/nats-server/server-binary.ts";
import { launchNatsServer } from "../../lib/nats-server/server-process.ts";
import { createClient, type RpcClient } from "../../lib/rpc/client.ts";
import { version } from "../../lib/version.ts";
import { createStyle, percent, type Style, seconds } from "../format.ts";
import { createScreen, type Screen } from "../screen.ts";
import { parseStartOptions, type StartOptions, startUsage } from "./options.ts";
import { earlierRuns, runReport, runSeconds, statusName } from "./report.ts";
import { applyToView, emptyView, plainLine, type RunView, renderView, stageNames } from "./run-view.ts";
import { classify, type Sample, writeSamples } from "./samples.ts";
import { type Folders, type ServiceProcesses, startServices } from "./services.ts";

/** What the parts of `start` share. */
interface Session {
  readonly options: StartOptions;
  readonly screen: Screen;
  readonly style: Style;
  readonly folders: Folders;
  /** Aborts at Ctrl-C. */
  readonly interrupted: AbortSignal;
}

const home = resolve(".millrace");

/** `millrace start`: broker, services, one run, three predictions. Returns the status with which to exit. */
export async function start(args: string[]): Promise<number> {
  const options = parseStartOptions(args);
  if (options === undefined) {
    console.log(startUsage);
    return 0;
  }
  const screen = createScreen();
  const style = createStyle(screen.interactive && !process.env.NO_COLOR);
  const folders = {
    root: home,
    logs: join(home, "logs"),
    traces: join(home, "traces"),
    artifacts: join(home, "artifacts"),
  };
  const session: Session = { options, screen, style, folders, interrupted: interruptSignal() };
  screen.line(`${style.bold("Millrace")} ${version}\n`);
  try {
    return await runEverything(session);
  } catch (thrown) {
    if (session.interrupted.aborted) return 130;
    screen.keep();
    screen.line(`\n${style.bad("Failed:")} ${AppError.from(thrown).message}`);
    return 1;
  } finally {
    screen.keep();
    if (session.interrupted.aborted || !options.exit) screen.line("Everything has stopped.");
  }
}

function interruptSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) process.once(name, () => controller.abort());
  return controller.signal;
}

async function runEverything(session: Session): Promise<number> {
  const { screen, style, folders, options, interrupted } = session;
  await using nats = await startBroker(session);
  const startedMs = performance.now();
  await using services = await startServices({
    natsUrl: nats.url,
    folders,
    env: process.env,
    onRestart: (message) => screen.line(`  ${style.bad("!")} ${message}`),
  });
  await orInterrupted(services.ready(), interrupted);
  screen.line(
    `  services     ${Object.keys(services.addresses).join(", ")} ${style.dim(`(ready in ${seconds((performance.now() - startedMs) / 1000)})`)}`,
  );

  const pipeline = createClient(PipelineService, { address: services.addresses.pipeline });
  try {
    const run = await orInterrupted(Promise.race([runPipeline(session, pipeline), services.failed]), interrupted);
    if (run.status !== RunStatus.SUCCEEDED) {
      screen.line(
        `\n${style.bad("Failed:")} run ${run.runId} ${run.failure?.code ?? ""}: ${run.failure?.message ?? statusName(run)}`,
      );
      return 1;
    }
    for (const line of ["", ...runReport(run, style)]) screen.line(line);
    const samples = await showPredictions(session, run, services);
    screen.line(
      `\nTrace of the run: ${style.bold(run.traceId)} ${style.dim(`(${relative("", folders.traces)}/*.jsonl, OTLP JSON lines)`)}`,
    );
    if (options.exit) return 0;
    for (const line of nextSteps(services, samples, style)) screen.line(line);
    await orInterrupted(services.failed, interrupted);
    return 0;
  } finally {
    pipeline.close();
    if (interrupted.aborted) {
      screen.keep();
      screen.line("\nStopping ...");
    }
  }
}

async function startBroker({ screen, style, interrupted }: Session): Promise<{ url: string } & AsyncDisposable> {
  const running = process.env.MILLRACE_NATS_URL;
  if (running) {
    screen.line(`  broker       ${running}`);
    return { url: running, [Symbol.asyncDispose]: async () => {} };
  }
  const startedMs = performance.now();
  const cacheFolder = userCacheFolder(process.env);
  const onProgress = (message: string) => screen.line(`  ${style.dim(message)}`);
  const binary = await orInterrupted(findNatsServer({ env: process.env, cacheFolder, onProgress }), interrupted);
  const server = await launchNatsServer({ binary, storeFolder: join(home, "nats") });
  screen.line(
    `  broker       nats-server ${server.version} at ${server.url} ${style.dim(`(${seconds((performance.now() - startedMs) / 1000)})`)}`,
  );
  return server;
}

/** The work, unless Ctrl-C comes first. */
async function orInterrupted<T>(work: Promise<T>, interrupted: AbortSignal): Promise<T> {
  interrupted.throwIfAborted();
  let listener = () => {};
  const interruption = new Promise<never>((_, reject) => {
    listener = () => reject(interrupted.reason);
    interrupted.addEventListener("abort", listener, { once: true });
  });
  try {
    return await Promise.race([work, interruption]);
  } finally {
    interrupted.removeEventListener("abort", listener);
  }
}

async function runPipeline(
  { options, screen, style, interrupted }: Session,
  pipeline: RpcClient<typeof PipelineService>,
): Promise<Run> {
  const { runs } = await pipeline.listRuns({ pageSize: 5 });
  if (runs.length > 0) for (const line of ["\nEarlier runs", ...earlierRuns(runs)]) screen.line(line);
  const { runId } = await pipeline.requestRun({ spec: specFrom(options) });
  screen.line(`\n${style.bold("Run")} ${runId} on ${options.dataset}`);

  let view: RunView = emptyView;
  let last: Run | undefined;
  const redraw = () => screen.draw(renderView(view, style, Date.now()));
  const ticking = setInterval(redraw, 200);
  try {
    for await (const { event, run } of pipeline.watchRun({ runId }, { signal: interrupted })) {
      if (event === undefined || run === undefined) continue;
      const before = view;
      view = applyToView(view, event, run);
      last = run;
      if (screen.interactive) redraw();
      else
        for (const name of stageNames)
          if (view.stages[name] !== before.stages[name]) screen.line(plainLine(name, view.stages[name]));
    }
  } finally {
    clearInterval(ticking);
  }
  redraw();
  screen.keep();
  if (last === undefined)
    throw new AppError("INTERNAL", `run ${runId} ended without an event; see ${join(home, "logs")}`);
  screen.line(`  ${statusName(last)} after ${runSeconds(last)}`);
  return last;
}

function specFrom({ dataset, limit, seed, network, epochs, minimumAccuracy }: StartOptions) {
  return {
    dataset: { source: dataset, limitPerClass: limit, seed: BigInt(seed ?? 0) },
    training: {
      ...(network === undefined ? {} : { network }),
      ...(epochs === undefined ? {} : { epochs }),
      ...(seed === undefined ? {} : { seed }),
    },
    ...(minimumAccuracy === undefined ? {} : { gate: { minimumAccuracy } }),
  };
}

async function showPredictions(
  { screen, style, folders }: Session,
  run: Run,
  { addresses }: ServiceProcesses,
): Promise<Sample[]> {
  const samples = await writeSamples(run.dataset?.digest ?? "", folders.artifacts, join(home, "samples"));
  const answers = await classify(samples, addresses.prediction);
  screen.line(
    `\n${style.bold("Predictions")} by model ${answers[0]?.model?.name} version ${answers[0]?.model?.version}`,
  );
  for (const [index, { path, label }] of samples.entries()) {
    const top =
      answers[index]?.predictions.map((guess) => `${guess.label} ${percent(guess.probability)}`).join(", ") ?? "";
    const right = answers[index]?.predictions[0]?.label === label;
    screen.line(`  ${right ? style.good("✓") : style.bad("✗")} ${relative("", path)}  ${top}`);
  }
  return samples;
}

function nextSteps({ addresses }: ServiceProcesses, samples: readonly Sample[], style: Style): string[] {
  const file = relative("", samples[0]?.path ?? "image.png");
  const method = "millrace.v1.PredictionService/Predict";
  const body = `{"image":"'"$(base64 < ${file} | tr -d '\\n')"'","topK":3}`;
  return [
    "",
    style.bold("Everything stays up until Ctrl-C."),
    ...Object.entries(addresses).map(([name, address]) => `  ${name.padEnd(11)} http://${address}`),
    "",
    "Connect, with curl:",
    `  curl -s -H 'content-type: application/json' -d '${body}' http://${addresses.prediction}/${method}`,
    "gRPC, with reflection:",
    `  npx buf curl --protocol grpc --http2-prior-knowledge -d '${body}' http://${addresses.prediction}/${method}`,
    "Next:",
    "  npm start -- --dataset path/to/your/images     # one folder per class, or an archive of them",
  ];
}

import { resolve } from "node:path";
import { createMillraceClient } from "../../client/client.ts";
import { type Run, RunStatus } from "../../gen/millrace/v1/pipeline_pb.ts";
import { orAborted } from "../../lib/abort.ts";
import { version } from "../../lib/version.ts";
import { createStyle, messageOf, percent, type Style, seconds, shortPath } from "../format.ts";
import { createScreen } from "../screen.ts";
import { type Broker, startBroker } from "./broker.ts";
import { writeCurves } from "./curves.ts";
import { parseStartOptions, startUsage } from "./options.ts";
import { earlierRuns, runReport, statusName } from "./report.ts";
import { classify, type Sample, writeSamples } from "./samples.ts";
import { type ServiceProcesses, startServices } from "./services.ts";
import { foldersIn, type Session } from "./session.ts";
import { requestAndWatch } from "./watch-run.ts";

/** Status of a process that Ctrl-C has ended, by convention of shells. */
const interruptedStatus = 130;
const earlierRunsShown = 5;

/** `npm start`: broker, services, one run, three predictions. Returns the status with which to exit. */
export async function start(args: string[]): Promise<number> {
  const options = await parseStartOptions(args);
  if (options === undefined) {
    console.log(await startUsage());
    return 0;
  }
  const screen = createScreen();
  const style = createStyle(screen.interactive && !process.env.NO_COLOR);
  const session: Session = { options, screen, style, folders: foldersIn(options.home), interrupted: interruptSignal() };
  screen.line(`${style.bold("Millrace")} ${version}\n`);
  try {
    return await runEverything(session);
  } catch (thrown) {
    if (session.interrupted.aborted) return options.exit ? interruptedStatus : 0;
    screen.line(`\n${style.bad("Failed:")} ${messageOf(thrown)}`);
    return 1;
  } finally {
    screen.line("Everything has stopped.");
  }
}

function interruptSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) process.once(name, () => controller.abort());
  return controller.signal;
}

async function runEverything(session: Session): Promise<number> {
  const { screen, style, options, interrupted } = session;
  await using broker = await startBroker(session);
  await using services = await startAllServices(session, broker);
  const failed = Promise.race([services.failed, broker.failed]);
  const millrace = createMillraceClient({ baseUrl: services.urls.pipeline });
  try {
    const { runs } = await millrace.pipeline.listRuns({ pageSize: earlierRunsShown });
    if (runs.length > 0) for (const line of ["\nEarlier runs", ...earlierRuns(runs)]) screen.line(line);
    const run = await orAborted(
      Promise.race([requestAndWatch(session, millrace.pipeline, services.urls.prediction), failed]),
      interrupted,
    );
    const { succeeded, samples } = await showResults(session, run, services);
    if (options.exit) return succeeded ? 0 : 1;
    for (const line of nextSteps(services, samples, style)) screen.line(line);
    await orAborted(failed, interrupted);
    return 0;
  } finally {
    millrace.close();
    screen.line("\nStopping ...");
  }
}

async function startAllServices(
  { screen, style, folders, interrupted }: Session,
  { url: natsUrl, failed }: Broker,
): Promise<ServiceProcesses> {
  const startedMs = performance.now();
  const onRestart = (message: string) => screen.line(`  ${style.bad("!")} ${message}`);
  const services = await startServices({ natsUrl, folders, env: process.env, onRestart });
  try {
    await orAborted(Promise.race([services.ready(interrupted), failed]), interrupted);
  } catch (thrown) {
    await services[Symbol.asyncDispose]();
    throw thrown;
  }
  const took = style.dim(`(ready in ${seconds((performance.now() - startedMs) / 1000)})`);
  screen.line(`  services     ${Object.keys(services.urls).join(", ")} ${took}`);
  return services;
}

async function showResults(session: Session, run: Run, services: ServiceProcesses) {
  const { screen, style, folders, options } = session;
  if (run.status !== RunStatus.SUCCEEDED) {
    const { code, message } = run.failure ?? { code: "", message: statusName(run) };
    screen.line(`\n${style.bad("Failed:")} run ${run.runId}: ${code} ${message}`);
    return { succeeded: false, samples: [] };
  }
  for (const line of ["", ...runReport(run, style)]) screen.line(line);
  const curves = await writeCurves(run, folders.artifacts, folders.curves);
  if (curves !== undefined) screen.line(`\nCurves of the training: ${shortPath(curves)}`);
  const samples = await writeSamples(run.dataset?.digest ?? "", folders.artifacts, folders.samples);
  const anyModel = run.decision?.promote === true || (run.decision?.championVersion ?? 0) > 0;
  if (anyModel) await showPredictions(session, samples, services.urls.prediction);
  else
    screen.line("\nNo predictions: no model is live. Train longer (--epochs) or lower the bar (--minimum-accuracy).");
  const traces = style.dim(`(${shortPath(folders.traces)}/*.jsonl, OTLP JSON lines)`);
  screen.line(`\nTrace of the run: ${style.bold(run.traceId)} ${traces}`);
  screen.line(`  npm run trace -- ${run.runId}${homeOption(options.home)}    # add --open to see it in a browser`);
  return { succeeded: anyModel, samples };
}

async function showPredictions({ screen, style }: Session, samples: readonly Sample[], baseUrl: string): Promise<void> {
  const answers = await classify(samples, baseUrl);
  const model = answers[0]?.model;
  screen.line(`\n${style.bold("Predictions")} by model "${model?.name}" version ${model?.version}`);
  for (const [index, { path, label }] of samples.entries()) {
    const guesses = answers[index]?.predictions ?? [];
    const mark = guesses[0]?.label === label ? style.good("✓") : style.bad("✗");
    const top = guesses.map((guess) => `${guess.label} ${percent(guess.probability)}`).join(", ");
    screen.line(`  ${mark} ${shortPath(path)}  ${top}`);
  }
}

function nextSteps({ urls }: ServiceProcesses, samples: readonly Sample[], style: Style): string[] {
  const file = shellQuoted(shortPath(samples[0]?.path ?? "image.png"));
  // Through standard input, since an argument has a limit that a photograph exceeds.
  const request = `printf '{"image":"%s","topK":3}' "$(base64 < ${file} | tr -d '\\n')"`;
  const url = `${urls.prediction}/millrace.v1.PredictionService/Predict`;
  return [
    "",
    ...Object.entries(urls).map(([name, url]) => `  ${name.padEnd(11)} ${url}`),
    "",
    style.bold("Connect, with curl"),
    `  ${request} | curl -s -H 'content-type: application/json' -d @- ${url}`,
    style.bold("gRPC, with reflection"),
    `  ${request} | npx buf curl --protocol grpc --http2-prior-knowledge -d @- ${url}`,
    style.bold("Next"),
    "  npm start -- --dataset path/to/your/images    # one folder per class, or an archive of them",
    "",
    "Everything stays up until Ctrl-C.",
  ];
}

/** How a later command is told of a home folder that is not the one it would look in. */
function homeOption(home: string): string {
  return home === resolve(".millrace") ? "" : ` --home ${shellQuoted(shortPath(home))}`;
}

/** A path as one word for a shell: it bears the name of a class, which is whatever a folder was called. */
function shellQuoted(path: string): string {
  return /^[\w./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;
}

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, open, readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { createMillraceClient, type WaitOptions, waitUntilServing } from "../../client/client.ts";
import { type ServiceName, servicePorts } from "../../lib/config.ts";
import { AppError } from "../../lib/errors.ts";
import { typeScriptOptions } from "../../lib/type-script.ts";
import type { Folders } from "./session.ts";

/** The services as processes of their own. One that dies is started again, as an orchestrator would. */
export interface ServiceProcesses extends AsyncDisposable {
  /** Where each answers, such as http://127.0.0.1:7404. */
  readonly urls: Readonly<Record<ServiceName, string>>;
  /** Resolves when all answer; rejects if one cannot be kept running, or when aborted. */
  ready(signal?: AbortSignal): Promise<void>;
  /** Rejects, with the end of its log, when a service has died more often than it is started again. Never resolves. */
  readonly failed: Promise<never>;
}

export interface ServicesOptions {
  readonly natsUrl: string;
  readonly folders: Folders;
  readonly env: NodeJS.ProcessEnv;
  /** Called when a service has died and is started again. */
  readonly onRestart: (message: string) => void;
}

interface ServiceProcess {
  readonly name: ServiceName;
  readonly port: number;
  readonly logFile: string;
  child: ChildProcess;
}

const names = Object.keys(servicePorts) as ServiceName[];
const readyTimeoutMs = 60_000;
const stopGraceMs = 15_000;
const maxRestarts = 3;

/** Starts the services against a broker. Their logs are JSON lines in the folder of logs. */
export async function startServices(options: ServicesOptions): Promise<ServiceProcesses> {
  const { folders } = options;
  for (const folder of [folders.logs, folders.traces, folders.artifacts]) await mkdir(folder, { recursive: true });
  const services = await Promise.all(names.map((name) => startService(name, options)));
  const state = { stopping: false };
  const failed = Promise.race(services.map((service) => supervise(service, options, state)));
  // Whoever waits for the services hears of it; before that it must not count as unhandled.
  failed.catch(() => undefined);
  const urlOf = ({ port }: ServiceProcess) => `http://127.0.0.1:${port}`;
  return {
    urls: Object.fromEntries(services.map((service) => [service.name, urlOf(service)])) as Record<ServiceName, string>,
    failed,
    ready: async (signal = new AbortController().signal) => {
      const enough = new AbortController();
      const options = { timeoutMs: readyTimeoutMs, signal: AbortSignal.any([signal, enough.signal]) };
      try {
        const all = services.map((service) => serving(urlOf(service), options));
        await Promise.race([Promise.all(all), failed]);
      } finally {
        // Who still waits for a service that will not come would keep this process from ending.
        enough.abort();
      }
    },
    [Symbol.asyncDispose]: async () => {
      state.stopping = true;
      await Promise.all(services.map(({ child }) => stop(child)));
    },
  };
}

async function startService(name: ServiceName, options: ServicesOptions): Promise<ServiceProcess> {
  const port = await freePort(servicePorts[name]);
  const logFile = join(options.folders.logs, `${name}.jsonl`);
  return { name, port, logFile, child: await launch({ name, port, logFile }, options) };
}

async function launch(
  { name, port, logFile }: Omit<ServiceProcess, "child">,
  options: ServicesOptions,
): Promise<ChildProcess> {
  const { natsUrl, folders, env } = options;
  const log = await open(logFile, "a");
  try {
    const program = join(import.meta.dirname, "../../services", name, "main.ts");
    return spawn(process.execPath, [...typeScriptOptions, program], {
      cwd: join(import.meta.dirname, "../.."),
      env: {
        ...env,
        // The threads that decode images. Node's default is 4 on any machine.
        UV_THREADPOOL_SIZE: String(Math.max(4, availableParallelism())),
        MILLRACE_NATS_URL: natsUrl,
        MILLRACE_ARTIFACTS: `file:${folders.artifacts}`,
        MILLRACE_TRACE_DIR: folders.traces,
        // The same name after every start, so that trace files are rotated and do not pile up.
        MILLRACE_INSTANCE_ID: "local",
        ...inClearText(name),
        [`MILLRACE_${name.toUpperCase()}_HOST`]: "127.0.0.1",
        [`MILLRACE_${name.toUpperCase()}_PORT`]: String(port),
      },
      // A process group of its own, so that Ctrl-C reaches only this process, which stops everything in order. The
      // channel tells a service that this process is gone, however it went.
      detached: true,
      stdio: ["ignore", log.fd, log.fd, "ipc"],
    });
  } finally {
    await log.close();
  }
}

async function supervise(
  service: ServiceProcess,
  options: ServicesOptions,
  state: { stopping: boolean },
): Promise<never> {
  for (let restarts = 0; ; restarts++) {
    await once(service.child, "exit");
    if (state.stopping) return new Promise<never>(() => {});
    const { exitCode, signalCode } = service.child;
    const ended = `the ${service.name} service ended ${exitCode === null ? `by ${signalCode}` : `with status ${exitCode}`}`;
    // A status of its own choice, such as for a bad configuration, would only come again.
    if (exitCode !== null || restarts === maxRestarts) {
      throw new AppError("INTERNAL", `${ended}:\n  ${await lastWords(service.logFile)}\nIts log: ${service.logFile}`);
    }
    options.onRestart(`${ended}; it is started again`);
    service.child = await launch(service, options);
  }
}

const linesShown = 8;

/** Why a service ended: its own last word, or what Node wrote when it crashed. */
async function lastWords(logFile: string): Promise<string> {
  const lines = (await readFile(logFile, "utf8").catch(() => "")).trimEnd().split("\n").slice(-linesShown);
  const fatal = fatalMessage(lines.at(-1) ?? "");
  return (fatal ?? lines.join("\n")).replaceAll("\n", "\n  ");
}

function fatalMessage(line: string): string | undefined {
  try {
    const { level, message } = JSON.parse(line) as { level?: string; message?: string };
    return level === "fatal" ? message : undefined;
  } catch {
    // Not a line of ours: Node's own account of a crash.
    return undefined;
  }
}

/** The preferred port if nobody listens on it, else any other. */
async function freePort(preferred: number): Promise<number> {
  for (const candidate of [preferred, 0]) {
    const server = createServer();
    server.listen(candidate, "127.0.0.1");
    const free = await once(server, "listening").then(
      () => true,
      () => false,
    );
    if (!free) continue;
    const address = server.address();
    server.close();
    await once(server, "close");
    if (address !== null && typeof address === "object") return address.port;
  }
  throw new AppError("CONFIGURATION_INVALID", "no free port on 127.0.0.1");
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  const kill = setTimeout(() => child.kill("SIGKILL"), stopGraceMs);
  await ended;
  clearTimeout(kill);
}

/** The command asks its services in clear text and without a token: that does not leave the machine. */
function inClearText(name: ServiceName): NodeJS.ProcessEnv {
  const settings = ["ACCESS_TOKEN", "TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_CLIENT_CA_FILE"];
  const variables = settings.flatMap((setting) => [`MILLRACE_${setting}`, `MILLRACE_${name.toUpperCase()}_${setting}`]);
  return Object.fromEntries(variables.map((variable) => [variable, ""]));
}

async function serving(baseUrl: string, options: WaitOptions): Promise<void> {
  const millrace = createMillraceClient({ baseUrl });
  try {
    await waitUntilServing(millrace.health, options);
  } finally {
    millrace.close();
  }
}

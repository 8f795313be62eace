import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, open, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { AppError } from "../errors.ts";
import type { NatsServerBinary } from "./program.ts";
import { type ClaimedStore, claimStore, configFile } from "./store-claim.ts";

/** How long the server may take until it listens; it takes about 0.1 s with an empty store, longer with a large one. */
const startTimeoutMs = 30_000;
/** How long it may take to stop after SIGTERM before SIGKILL follows. */
const stopGraceMs = 5_000;
const pollIntervalMs = 20;
const logTailLines = 20;

export interface LaunchOptions {
  readonly binary: NatsServerBinary;
  /** Folder of the server: its streams, configuration, log and claim. Created if it is not there. */
  readonly storeFolder: string;
  /** Port on loopback. Default: a free one. */
  readonly port?: number;
  /** The log is appended to it. Default: `nats-server.log` in the store folder. */
  readonly logFile?: string;
  /** Limit on what all streams together may keep on disk. Default: the server's own, three quarters of what is free. */
  readonly maxFileStoreBytes?: number;
  /** Lines in the server's configuration language that are added to ours, such as an `authorization { }` block. */
  readonly extraConfig?: string;
}

/** How a server ended. */
export interface ServerExit {
  /** Its status, or undefined if a signal ended it. */
  readonly status: number | undefined;
  readonly signal: NodeJS.Signals | undefined;
  /** The last lines of its log. */
  readonly lastLines: string;
}

/** A nats-server that this process started. It ends with this process at the latest, except on Windows. */
export interface NatsServer extends AsyncDisposable {
  /** Such as "nats://127.0.0.1:4222". */
  readonly url: string;
  readonly port: number;
  /** Address of the monitoring pages, on loopback as well. */
  readonly monitorUrl: string;
  readonly pid: number;
  /** Such as "2.10.27". */
  readonly version: string;
  /** Resolves when the server has ended, asked to or not. Never rejects. */
  readonly exited: Promise<ServerExit>;
  /** Ends the server and waits for it: SIGTERM, and SIGKILL after 5 s. Does nothing if it has ended. */
  stop(): Promise<void>;
}

/**
 * Starts a nats-server with JetStream on loopback and waits until it listens.
 *
 * Throws CONFLICT if another process runs a server on the same store folder, CONFIGURATION_INVALID if the store was
 * written by a newer server, and BROKER_UNAVAILABLE, with the end of the log, if the server does not come up.
 */
export async function launchNatsServer(options: LaunchOptions): Promise<NatsServer> {
  const { binary } = options;
  const storeFolder = resolve(options.storeFolder);
  const logFile = options.logFile ?? join(storeFolder, "nats-server.log");
  const portsFolder = join(storeFolder, "ports");
  const claim = await claimStore(storeFolder, binary.version);
  let child: ChildProcess;
  try {
    await rm(portsFolder, { recursive: true, force: true });
    await mkdir(portsFolder);
    await writeFile(configFile(storeFolder), configuration(storeFolder, portsFolder, options));
    child = await spawnServer(binary.path, configFile(storeFolder), logFile);
  } catch (error) {
    await claim.release();
    throw error;
  }
  const exited = exitOf(child, claim, logFile);
  const stop = () => stopServer(child, exited);
  try {
    if (child.pid === undefined) throw new Error("it could not be started");
    await claim.serverStarted(child.pid);
    guardAgainstOrphan(child, child.pid);
    const ports = await listeningPorts(portsFolder, exited);
    return { ...ports, pid: child.pid, version: binary.version, exited, stop, [Symbol.asyncDispose]: stop };
  } catch (error) {
    await stop();
    const { lastLines } = await exited;
    const reason = AppError.from(error).message;
    throw new AppError("BROKER_UNAVAILABLE", `${binary.path} did not start: ${reason}\n${lastLines}`, { cause: error });
  }
}

function configuration(storeFolder: string, portsFolder: string, options: LaunchOptions): string {
  const { port = -1, maxFileStoreBytes, extraConfig = "" } = options;
  // Strings of the configuration language are written as JSON writes them.
  const limit = maxFileStoreBytes === undefined ? "" : `, max_file_store: ${maxFileStoreBytes}`;
  return `server_name: millrace
listen: "127.0.0.1:${port}"
http: "127.0.0.1:-1"
ports_file_dir: ${JSON.stringify(portsFolder)}
jetstream { store_dir: ${JSON.stringify(storeFolder)}${limit} }
${extraConfig}
`;
}

/** The log goes to a file descriptor, so that lines from before the server reads its configuration are kept too. */
async function spawnServer(program: string, config: string, logFile: string): Promise<ChildProcess> {
  const log = await open(logFile, "a");
  try {
    // A process group of its own: Ctrl-C in a terminal reaches only us, and the server ends after its clients.
    const child = spawn(program, ["-c", config], { stdio: ["ignore", log.fd, log.fd], detached: true });
    child.on("error", () => {}); // a program that cannot be started has no pid, which the caller checks
    return child;
  } finally {
    await log.close();
  }
}

/**
 * Ends the server when this process ends without having stopped it, by SIGKILL for example: a shell waits for the end
 * of a pipe whose other end only this process holds.
 */
function guardAgainstOrphan(server: ChildProcess, pid: number): void {
  if (process.platform === "win32" || hasEnded(server)) return;
  const guard = spawn("/bin/sh", ["-c", 'read -r _; kill "$1"', "nats-server-guard", String(pid)], {
    stdio: ["pipe", "ignore", "ignore"],
    detached: true,
  });
  guard.on("error", () => {}); // without a shell there is no guard; the next start finds the server by its claim
  guard.unref();
  server.once("exit", () => guard.kill("SIGKILL"));
}

/** The addresses, as soon as the server has written its ports file, which it does when it accepts connections. */
async function listeningPorts(folder: string, exited: Promise<ServerExit>) {
  let ended = false;
  void exited.then(() => {
    ended = true;
  });
  for (const deadline = Date.now() + startTimeoutMs; Date.now() < deadline; await delay(pollIntervalMs)) {
    if (ended) throw new Error("it ended at once");
    const file = (await readdir(folder)).find((name) => name.endsWith(".ports"));
    // A file that is written at this moment may be empty or cut off: the next look finds it whole.
    const text = file === undefined ? "" : await readFile(join(folder, file), "utf8");
    if (!text.trimEnd().endsWith("}")) continue;
    const { nats, monitoring } = JSON.parse(text) as { nats: [string]; monitoring: [string] };
    return { url: nats[0], port: Number(new URL(nats[0]).port), monitorUrl: monitoring[0] };
  }
  throw new Error(`it did not listen within ${startTimeoutMs / 1000} s`);
}

/** Waits for the end, gives the store free, and tells how it was. */
async function exitOf(child: ChildProcess, claim: ClaimedStore, logFile: string): Promise<ServerExit> {
  const started = child.pid !== undefined;
  if (started && !hasEnded(child)) await new Promise((resolve) => child.once("exit", resolve));
  await claim.release();
  const log = await readFile(logFile, "utf8").catch(() => "");
  return {
    status: child.exitCode ?? undefined,
    signal: child.signalCode ?? undefined,
    lastLines: log.trimEnd().split("\n").slice(-logTailLines).join("\n"),
  };
}

async function stopServer(child: ChildProcess, exited: Promise<ServerExit>): Promise<void> {
  if (!hasEnded(child)) child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), stopGraceMs);
  await exited;
  clearTimeout(timer);
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

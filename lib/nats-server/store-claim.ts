import { execFile } from "node:child_process";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { AppError } from "../errors.ts";
import { compareVersions } from "./program.ts";

const run = promisify(execFile);
/** How long a server that was left behind may take to stop before it is killed. */
const stopGraceMs = 5_000;
const pollIntervalMs = 20;

/** What the claim file of a store says. */
interface Claim {
  /** The process that started the server. */
  readonly ownerPid: number;
  /** Missing for the moment between the claim and the start. */
  readonly serverPid?: number;
}

/** Path of a server's configuration. The server's command line names it, so a process can be recognised as the server of this store. */
export function configFile(storeFolder: string): string {
  return join(resolve(storeFolder), "nats-server.conf");
}

/**
 * Makes this process the only one that runs a server on the folder: a server that was left behind is stopped first.
 *
 * Throws CONFLICT if the process that started the present server still lives, and CONFIGURATION_INVALID if a newer
 * server has written the store: an older one would read it with messages that were removed back in place.
 */
export async function claimStore(storeFolder: string, version: string) {
  await mkdir(storeFolder, { recursive: true });
  await refuseDowngrade(storeFolder, version);
  await stopStaleServer(storeFolder);
  const file = claimFile(storeFolder);
  try {
    await writeFile(file, JSON.stringify({ ownerPid: process.pid } satisfies Claim), { flag: "wx" });
  } catch (error) {
    throw new AppError("CONFLICT", `another process is just starting a nats-server on ${storeFolder}`, {
      cause: error,
    });
  }
  return {
    serverStarted: (serverPid: number) =>
      writeFile(file, JSON.stringify({ ownerPid: process.pid, serverPid } satisfies Claim)),
  };
}

/** Gives the folder free for the next start. */
export async function releaseStore(storeFolder: string): Promise<void> {
  await rm(claimFile(storeFolder), { force: true });
}

/**
 * Stops the nats-server that a process which is gone left running on the folder, and returns whether there was one.
 * Throws CONFLICT if the process that started it still lives: two servers on one store would destroy it.
 */
export async function stopStaleServer(storeFolder: string): Promise<boolean> {
  const claim = await readClaim(storeFolder);
  if (claim === undefined) return false;
  const { ownerPid, serverPid } = claim;
  const serverRuns = serverPid !== undefined && (await isServerOf(storeFolder, serverPid));
  if ((serverRuns || serverPid === undefined) && (await isRunning(ownerPid))) {
    throw new AppError(
      "CONFLICT",
      `process ${ownerPid} runs a nats-server on ${storeFolder}; stop that process or choose another folder`,
      { details: { storeFolder, ownerPid: String(ownerPid) } },
    );
  }
  if (serverRuns) await stopServerOf(storeFolder, serverPid);
  await releaseStore(storeFolder);
  return serverRuns;
}

async function refuseDowngrade(storeFolder: string, version: string): Promise<void> {
  const file = join(storeFolder, "nats-server.version");
  const writtenBy = (await readFile(file, "utf8").catch(() => version)).trim();
  if (compareVersions(version, writtenBy) < 0) {
    throw new AppError(
      "CONFIGURATION_INVALID",
      `${storeFolder} was written by nats-server ${writtenBy} and must not be opened by ${version}: ` +
        "set NATS_SERVER_BIN to a server of that version or later, or choose another folder",
      { details: { storeFolder, version, writtenBy } },
    );
  }
  await writeFile(file, version);
}

function claimFile(storeFolder: string): string {
  return join(storeFolder, "nats-server.claim");
}

async function readClaim(storeFolder: string): Promise<Claim | undefined> {
  try {
    return JSON.parse(await readFile(claimFile(storeFolder), "utf8")) as Claim;
  } catch {
    // No claim; or one that was cut off when the machine went down, whose server went with it.
    return undefined;
  }
}

/** A zombie, which is dead but not yet buried by its parent, does not run: Linux shows no command line for it. */
async function isRunning(pid: number): Promise<boolean> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EPERM") return false; // otherwise it lives, and is somebody else's
  }
  return process.platform !== "linux" || (await commandLine(pid)) !== "";
}

/** Whether the process is the server of this folder, and not a stranger who was given the same number. */
async function isServerOf(storeFolder: string, pid: number): Promise<boolean> {
  return (await isRunning(pid)) && (await commandLine(pid)).includes(configFile(storeFolder));
}

async function commandLine(pid: number): Promise<string> {
  try {
    return process.platform === "linux"
      ? (await readFile(`/proc/${pid}/cmdline`, "utf8")).replaceAll("\0", " ")
      : (await run("ps", ["-ww", "-o", "args=", "-p", String(pid)])).stdout;
  } catch {
    // It ended meanwhile, or the platform has no ps (Windows): not to be recognised as ours.
    return "";
  }
}

async function stopServerOf(storeFolder: string, pid: number): Promise<void> {
  const deadline = Date.now() + stopGraceMs;
  let signal: NodeJS.Signals | 0 = "SIGTERM";
  while (await isServerOf(storeFolder, pid)) {
    try {
      process.kill(pid, signal);
    } catch {
      return; // it ended between the question and the signal
    }
    await delay(pollIntervalMs);
    signal = Date.now() < deadline ? 0 : "SIGKILL"; // 0 only asks
  }
}

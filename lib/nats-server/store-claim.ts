import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { AppError } from "../errors.ts";
import { compareVersions } from "./program.ts";

const run = promisify(execFile);
/** How long a server that was left behind may take to stop before it is killed. */
const stopGraceMs = 5_000;
const pollIntervalMs = 20;

/**
 * Who runs a server on a store. It is said by the name of the one file in a folder, and each change is a rename of that
 * very name, which succeeds for one process alone: two that found the same claim cannot both take it over.
 */
interface Claim {
  /** `free`, `owner-<pid>.<id>`, or `owner-<pid>.<id>.server-<pid>` as soon as the server has started. */
  readonly name: string;
  /** The process that started the server. */
  readonly ownerPid: number | undefined;
  readonly serverPid: number | undefined;
}

/** A store that this process has claimed. */
export interface ClaimedStore {
  /** Says which process the server is, so that a later start can stop it. Without effect after `release`. */
  serverStarted(serverPid: number): Promise<void>;
  /** Gives the folder free for the next start. Never rejects. */
  release(): Promise<void>;
}

const free = "free";

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
export async function claimStore(storeFolder: string, version: string): Promise<ClaimedStore> {
  await mkdir(storeFolder, { recursive: true });
  await refuseDowngrade(storeFolder, version);
  const found = await readClaim(storeFolder);
  await stopStaleServer(storeFolder, found);
  const own = `owner-${process.pid}.${randomUUID()}`;
  await renameClaim(storeFolder, found.name, own).catch((error: NodeJS.ErrnoException) => {
    throw error.code === "ENOENT" ? justStarting(storeFolder, error) : error;
  });
  let name = own;
  let last = Promise.resolve();
  const become = (next: string) => {
    last = last.then(async () => {
      if (name === free) return;
      await renameClaim(storeFolder, name, next);
      name = next;
    });
    return last;
  };
  return {
    async serverStarted(serverPid) {
      await become(`${own}.server-${serverPid}`);
      await writeFile(versionFile(storeFolder), version);
    },
    // Only where the folder itself is gone can it fail: there is nothing left to give free.
    release: () => become(free).catch(() => undefined),
  };
}

/**
 * Stops the nats-server that a process which is gone left running on the folder. Throws CONFLICT if the process that
 * started it still lives: two servers on one store would destroy it.
 */
async function stopStaleServer(storeFolder: string, { ownerPid, serverPid }: Claim): Promise<void> {
  if (ownerPid === undefined) return;
  const serverRuns = serverPid !== undefined && (await isServerOf(storeFolder, serverPid));
  if ((serverRuns || serverPid === undefined) && (await isRunning(ownerPid))) {
    throw new AppError(
      "CONFLICT",
      `process ${ownerPid} runs a nats-server on ${storeFolder}; stop that process or choose another folder`,
      { details: { storeFolder, ownerPid: String(ownerPid) } },
    );
  }
  if (!serverRuns) return;
  if (process.platform !== "win32") return stopServerOf(storeFolder, serverPid);
  throw new AppError(
    "CONFLICT",
    `process ${serverPid} may be a nats-server that was left behind on ${storeFolder}; end it, or choose another folder`,
    { details: { storeFolder, serverPid: String(serverPid) } },
  );
}

/** Says which version last wrote the store. */
function versionFile(storeFolder: string): string {
  return join(storeFolder, "nats-server.version");
}

async function refuseDowngrade(storeFolder: string, version: string): Promise<void> {
  const file = versionFile(storeFolder);
  const writtenBy = (await readFile(file, "utf8").catch(() => version)).trim();
  if (compareVersions(version, writtenBy) < 0) {
    throw new AppError(
      "CONFIGURATION_INVALID",
      `${storeFolder} was written by nats-server ${writtenBy} and must not be opened by ${version}: ` +
        "set NATS_SERVER_BIN to a server of that version or later, or choose another folder",
      { details: { storeFolder, version, writtenBy } },
    );
  }
}

function claimFolder(storeFolder: string): string {
  return join(storeFolder, "nats-server.owner");
}

async function renameClaim(storeFolder: string, from: string, to: string): Promise<void> {
  await rename(join(claimFolder(storeFolder), from), join(claimFolder(storeFolder), to));
}

async function readClaim(storeFolder: string): Promise<Claim> {
  await makeClaimFolder(storeFolder);
  for (const name of await readdir(claimFolder(storeFolder))) {
    const [, ownerPid, serverPid] = /^owner-(\d+)\.[^.]+(?:\.server-(\d+))?$/.exec(name) ?? [];
    if (name === free) return { name, ownerPid: undefined, serverPid: undefined };
    if (ownerPid === undefined) continue;
    return { name, ownerPid: Number(ownerPid), serverPid: serverPid === undefined ? undefined : Number(serverPid) };
  }
  // It is being renamed at this moment.
  throw justStarting(storeFolder);
}

/** Makes the folder with a free claim in it, in one step, unless it is there: nothing replaces a folder that holds a file. */
async function makeClaimFolder(storeFolder: string): Promise<void> {
  const prepared = await mkdtemp(join(storeFolder, "nats-server.owner-"));
  await writeFile(join(prepared, free), "");
  try {
    await rename(prepared, claimFolder(storeFolder));
  } catch {
    await rm(prepared, { recursive: true });
  }
}

function justStarting(storeFolder: string, cause?: unknown): AppError {
  return new AppError("CONFLICT", `another process is just starting a nats-server on ${storeFolder}`, { cause });
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

/**
 * Whether the process is the server of this folder, and not a stranger who was given the same number. Windows shows no command line to ask
 * for: there it may be.
 */
async function isServerOf(storeFolder: string, pid: number): Promise<boolean> {
  if (!(await isRunning(pid))) return false;
  return process.platform === "win32" || (await commandLine(pid)).includes(configFile(storeFolder));
}

async function commandLine(pid: number): Promise<string> {
  try {
    return process.platform === "linux"
      ? (await readFile(`/proc/${pid}/cmdline`, "utf8")).replaceAll("\0", " ")
      : (await run("ps", ["-ww", "-o", "args=", "-p", String(pid)])).stdout;
  } catch {
    // It ended meanwhile: not to be recognised as ours.
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

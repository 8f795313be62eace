import { chmod, mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { makeCacheFolder } from "../cache-folder.ts";
import { AppError } from "../errors.ts";
import { debianPackage } from "./debian-package.ts";
import { officialRelease } from "./official-release.ts";
import { type BinarySource, inspectBinary, type NatsServerBinary, programName } from "./program.ts";

export interface ProvisionOptions {
  /** The program ends up in `nats-server/<version>/` below it. */
  readonly cacheFolder: string;
  readonly onProgress: (line: string) => void;
  /** Tried in this order. Default: the official release, then a Debian or Ubuntu package. */
  readonly sources?: readonly BinarySource[];
}

const advice =
  "Install nats-server, or set NATS_SERVER_BIN to its path, or set MILLRACE_NATS_URL to a server that runs.";

/**
 * Fetches a nats-server from the first source that has one that runs here, and keeps it in the cache folder.
 *
 * Any number of processes may do this at once: each works in a folder of its own, and the last step is a rename.
 * Throws DOWNLOAD_FAILED with the reason of every source, and CONFIGURATION_INVALID if the cache folder cannot be written,
 * both with what a person can do.
 */
export async function provisionNatsServer(options: ProvisionOptions): Promise<NatsServerBinary> {
  const { cacheFolder, onProgress, sources = [officialRelease(), ...debianPackage()] } = options;
  const home = join(cacheFolder, "nats-server");
  await makeCacheFolder(home).catch((error: AppError) => {
    const message = `no nats-server on this machine, and none could be kept: ${error.message}\n${advice}`;
    throw new AppError(error.code, message, { cause: error, details: error.details });
  });
  const failures: string[] = [];
  for (const source of sources) {
    try {
      onProgress(`getting nats-server from ${source.name}`);
      return await fetchFrom(source, home);
    } catch (error) {
      failures.push(`${source.name}: ${AppError.from(error).message}`);
      onProgress(`not there: ${failures.at(-1)}`);
    }
  }
  throw new AppError(
    "DOWNLOAD_FAILED",
    [
      "no nats-server on this machine, and none could be fetched:",
      ...failures.map((failure) => `  - ${failure}`),
      advice,
    ].join("\n"),
  );
}

async function fetchFrom(source: BinarySource, home: string): Promise<NatsServerBinary> {
  const work = await mkdtemp(join(home, "incoming-"));
  try {
    return await keep(await source.fetch(work), home);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Proves that a program runs, and moves it to its final place, over whatever is there. */
async function keep(program: string, home: string): Promise<NatsServerBinary> {
  await chmod(program, 0o755);
  const { version } = await inspectBinary(program);
  const path = join(home, version, programName);
  await mkdir(dirname(path), { recursive: true });
  try {
    await rename(program, path);
  } catch (error) {
    // Windows does not replace a program that runs: the one that another process has put there is as good.
    return inspectBinary(path).catch(() => Promise.reject(error));
  }
  return { path, version };
}

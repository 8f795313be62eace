import { constants } from "node:fs";
import { access, readdir } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { userCacheFolder } from "../cache-folder.ts";
import { AppError } from "../errors.ts";
import { type BinarySource, compareVersions, inspectBinary, type NatsServerBinary, programName } from "./program.ts";
import { provisionNatsServer } from "./provisioning.ts";

export interface FindOptions {
  /** Environment to read NATS_SERVER_BIN and PATH from, such as `process.env`. */
  readonly env: NodeJS.ProcessEnv;
  /** Where a downloaded server is kept. Default: `userCacheFolder(env)`. */
  readonly cacheFolder?: string;
  /** Called with one line for people at each step that takes time, and for each program that was passed over. */
  readonly onProgress?: (line: string) => void;
  /** Where to get a server if there is none. Default: the official release, then the distribution's package. */
  readonly sources?: readonly BinarySource[];
}

/**
 * Finds a nats-server to run: NATS_SERVER_BIN, then PATH, then the copy in the cache folder, then a download into it.
 *
 * Throws CONFIGURATION_INVALID if NATS_SERVER_BIN names a program that cannot serve (a person asked for that one, so it
 * is not passed over), and DOWNLOAD_FAILED, with everything that was tried, if there is none and none can be had.
 */
export async function findNatsServer(options: FindOptions): Promise<NatsServerBinary> {
  const { env, onProgress = () => {}, sources } = options;
  const cacheFolder = options.cacheFolder ?? userCacheFolder(env);
  if (env.NATS_SERVER_BIN) return inspectChosen(env.NATS_SERVER_BIN);

  for (const path of [...(await onPath(env)), ...(await inCache(cacheFolder))]) {
    try {
      return await inspectBinary(path);
    } catch (error) {
      onProgress(`passed over ${path}: ${AppError.from(error).message}`);
    }
  }
  return provisionNatsServer({ cacheFolder, onProgress, ...(sources && { sources }) });
}

async function inspectChosen(path: string): Promise<NatsServerBinary> {
  try {
    return await inspectBinary(path);
  } catch (error) {
    const reason = AppError.from(error).message;
    throw new AppError("CONFIGURATION_INVALID", `NATS_SERVER_BIN does not name a usable nats-server: ${reason}`, {
      details: { variable: "NATS_SERVER_BIN", path },
      cause: error,
    });
  }
}

/** The first nats-server on PATH, as a shell would find it. */
async function onPath(env: NodeJS.ProcessEnv): Promise<string[]> {
  for (const folder of (env.PATH ?? "").split(delimiter)) {
    const candidate = join(folder, programName);
    if (folder !== "" && (await isExecutable(candidate))) return [candidate];
  }
  return [];
}

/** The servers in the cache folder, the newest first. */
async function inCache(cacheFolder: string): Promise<string[]> {
  const folder = join(cacheFolder, "nats-server");
  // A cache folder that is not there yet holds nothing.
  const versions = await readdir(folder).catch(() => []);
  return versions
    .filter((name) => /^\d+\.\d+\.\d+$/.test(name))
    .sort((left, right) => compareVersions(right, left))
    .map((version) => join(folder, version, programName));
}

async function isExecutable(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}

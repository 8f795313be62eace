import { constants } from "node:fs";
import { access, mkdir } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { AppError } from "./errors.ts";

/** The user's cache folder for Millrace: `$XDG_CACHE_HOME/millrace`, else `~/.cache/millrace`, or the platform's own place on macOS and Windows. */
export function userCacheFolder(env: NodeJS.ProcessEnv, platform: NodeJS.Platform = process.platform): string {
  if (env.XDG_CACHE_HOME) return join(env.XDG_CACHE_HOME, "millrace");
  if (platform === "darwin") return join(homedir(), "Library", "Caches", "millrace");
  if (platform === "win32" && env.LOCALAPPDATA) return join(env.LOCALAPPDATA, "millrace", "cache");
  return join(homedir(), ".cache", "millrace");
}

/** Makes a cache folder unless it is there. Throws CONFIGURATION_INVALID, with what to set, if it cannot be written to. */
export async function makeCacheFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true });
    await access(path, constants.W_OK | constants.X_OK);
  } catch (error) {
    const advice = "set XDG_CACHE_HOME, or MILLRACE_INGESTION_CACHE_FOLDER for the ingestion service, to another one";
    throw new AppError(
      "CONFIGURATION_INVALID",
      `the cache folder ${path} cannot be written: ${AppError.from(error).message}; ${advice}`,
      { details: { path }, cause: error },
    );
  }
}

import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";

/** No transfer is silent for so long: a live one fails at its idle limit long before. */
const abandonedAfterMs = 24 * 60 * 60 * 1000;

/** Removes what processes that were killed in the middle of a write have left: files of a folder that nobody has written for a day. */
export async function removeAbandoned(folder: string, isOurs: (name: string) => boolean = () => true): Promise<void> {
  for (const name of await readdir(folder)) {
    if (!isOurs(name)) continue;
    const path = join(folder, name);
    const found = await unlessMissing(stat(path));
    if (found && Date.now() - found.mtimeMs > abandonedAfterMs) await rm(path, { force: true });
  }
}

/** The result, or undefined where the file does not exist. */
export async function unlessMissing<T>(result: Promise<T>): Promise<T | undefined> {
  return result.catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
}

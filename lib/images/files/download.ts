import { createHash, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { removeAbandoned } from "../../abandoned-files.ts";
import { makeCacheFolder } from "../../cache-folder.ts";
import { AppError } from "../../errors.ts";
import { withRetries } from "../../retry.ts";
import { withSpan } from "../../telemetry/spans.ts";

/** A file on the web whose content is known beforehand. */
export interface RemoteFile {
  readonly url: string;
  /** Name in the cache folder. */
  readonly fileName: string;
  readonly sizeBytes: number;
  /** MD5 of the content, hexadecimal: what the publisher states. It tells damage, not malice. */
  readonly md5: string;
}

export interface DownloadOptions {
  readonly cacheFolder: string;
  readonly signal: AbortSignal;
  onProgress(doneBytes: number, totalBytes: number): void;
  /** How long the server may be silent, in ms. Default: 30,000. */
  readonly idleTimeoutMs?: number;
  /** Pauses before further tries, in ms. Default: 1,000, 5,000 and 15,000. */
  readonly retryPausesMs?: readonly number[];
}

/**
 * Downloads a file into the cache folder, unless it is there already, and returns its path.
 *
 * Each try starts afresh, beside the file's final place, to which only a whole and verified file is moved: two processes
 * may download at once without harm. A cached file is verified again, so one that was damaged is replaced.
 *
 * @throws AppError DOWNLOAD_FAILED when the server cannot be reached, falls silent, sends something else, or refuses:
 * retryable where trying later may help, and saying where to put the file by hand; CONFIGURATION_INVALID when the cache
 * folder cannot be written.
 */
export async function download(file: RemoteFile, options: DownloadOptions): Promise<string> {
  const { cacheFolder, signal, retryPausesMs = [1000, 5000, 15_000] } = options;
  await makeCacheFolder(cacheFolder);
  await removeAbandoned(cacheFolder, (name) => name.endsWith(partialSuffix));
  const path = join(cacheFolder, file.fileName);
  if (await isWhole(path, file)) return path;
  const attributes = { "millrace.archive.size_bytes": file.sizeBytes };
  return withRetries(retryPausesMs, signal, () =>
    withSpan("download", { attributes }, () => tryDownload(file, path, options)),
  );
}

async function isWhole(path: string, { sizeBytes, md5 }: RemoteFile): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  if (found?.size !== sizeBytes) return false;
  const hash = createHash("md5");
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash.digest("hex") === md5;
}

const partialSuffix = ".partial";

async function tryDownload(file: RemoteFile, path: string, options: DownloadOptions): Promise<string> {
  const partial = `${path}.${randomUUID()}${partialSuffix}`;
  const target = await open(partial, "wx");
  const hash = createHash("md5");
  let done = 0;
  try {
    for await (const chunk of body(file, options)) {
      await target.writeFile(chunk);
      hash.update(chunk);
      done += chunk.length;
      if (done > file.sizeBytes) break;
      options.onProgress(done, file.sizeBytes);
    }
    if (done < file.sizeBytes) throw failed(file, `it ended after ${done} of ${file.sizeBytes} bytes`);
    if (done > file.sizeBytes) throw failed(file, `it is longer than the ${file.sizeBytes} bytes expected`);
    const md5 = hash.digest("hex");
    if (md5 !== file.md5) throw failed(file, `its md5 is ${md5}, not ${file.md5}: it is damaged or another file`);
    await target.close();
    await rename(partial, path);
    return path;
  } finally {
    await target.close();
    await rm(partial, { force: true });
  }
}

/** The body of a successful answer; a silence longer than the idle limit ends it with DOWNLOAD_FAILED. */
async function* body(
  file: RemoteFile,
  { signal, idleTimeoutMs = 30_000 }: DownloadOptions,
): AsyncGenerator<Uint8Array> {
  const idle = new AbortController();
  const silent = (): void => idle.abort(failed(file, `the server sent nothing for ${idleTimeoutMs / 1000} s`));
  const timer = setTimeout(silent, idleTimeoutMs);
  try {
    const answer = await fetch(file.url, { signal: AbortSignal.any([signal, idle.signal]) });
    if (!answer.ok || answer.body === null) {
      const retryable = answer.status >= 500 || answer.status === 429;
      throw failed(file, `the server answered ${answer.status} ${answer.statusText}`, { retryable });
    }
    for await (const chunk of answer.body) {
      timer.refresh();
      yield chunk;
    }
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof AppError) throw error;
    throw failed(file, causeOf(error), { cause: error });
  } finally {
    clearTimeout(timer);
  }
}

function failed(file: RemoteFile, reason: string, options: { retryable?: boolean; cause?: unknown } = {}): AppError {
  const remedy = `if this host cannot reach the server, download it elsewhere and name its path as the data set`;
  const details = { url: file.url };
  return new AppError("DOWNLOAD_FAILED", `${file.url} could not be downloaded: ${reason}; ${remedy}`, {
    details,
    ...options,
  });
}

/** What went wrong below: `fetch` says only that it failed and keeps the reason as the cause. */
function causeOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? error.cause.message || String(error.cause) : error.message;
}

import { randomUUID } from "node:crypto";
import { open, rm } from "node:fs/promises";
import { join } from "node:path";
import { makeCacheFolder } from "../../cache-folder.ts";
import { AppError } from "../../errors.ts";

/** Bytes gathered before they are written. */
const blockBytes = 1024 * 1024;

/** A temporary file: written from its beginning to its end, then read anywhere. */
export interface Spool extends AsyncDisposable {
  /** Appends bytes. Once it has returned, the caller may use their memory again. */
  append(bytes: Uint8Array): Promise<void>;
  /** Writes out what is still gathered; to be called between the last append and the first read. */
  flush(): Promise<void>;
  read(offset: number, length: number): Promise<Uint8Array>;
}

/**
 * A spool in a cache folder. Its name is removed at once, so nothing is left behind even when the process is killed.
 *
 * @throws AppError CONFIGURATION_INVALID when the folder cannot be written.
 */
export async function openSpool(folder: string): Promise<Spool> {
  await makeCacheFolder(folder);
  const path = join(folder, `spool-${randomUUID()}`);
  const file = await open(path, "wx+");
  await rm(path);
  const block = new Uint8Array(blockBytes);
  let held = 0;
  const flush = async (): Promise<void> => {
    for (let written = 0; written < held; ) {
      written += (await file.write(block, written, held - written)).bytesWritten;
    }
    held = 0;
  };
  return {
    async append(bytes) {
      for (let taken = 0; taken < bytes.length; ) {
        const part = bytes.subarray(taken, taken + blockBytes - held);
        block.set(part, held);
        held += part.length;
        taken += part.length;
        if (held === blockBytes) await flush();
      }
    },
    flush,
    async read(offset, length) {
      const bytes = new Uint8Array(length);
      const { bytesRead } = await file.read(bytes, 0, length, offset);
      if (bytesRead < length) throw new AppError("INTERNAL", `a spool ended ${length - bytesRead} bytes too soon`);
      return bytes;
    },
    [Symbol.asyncDispose]: () => file.close(),
  };
}

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import { type Extract, extract } from "tar-stream";
import { AppError } from "../../errors.ts";
import { type ArchiveGuard, createArchiveGuard, isHidden } from "./archive-limits.ts";
import type { FileTree, FileTreeOptions, TreeFile } from "./file-tree.ts";
import { openSpool, type Spool } from "./spool.ts";

export interface TarOptions extends FileTreeOptions {
  readonly gzipped: boolean;
}

/**
 * A .tar or .tar.gz as a tree of files. It is read once, from its beginning to its end, and its files' contents go to a
 * spool in the cache folder, from which they can then be read in any order: in an archive the order is arbitrary, and
 * which files are wanted is known only at the end. What is kept in memory is a path and a place for each file.
 */
export async function openTar(path: string, options: TarOptions): Promise<FileTree> {
  const guard = createArchiveGuard(path, (await stat(path)).size, options.limits);
  const spool = await openSpool(options.cacheFolder);
  try {
    const files = await unpack(path, { spool, guard, ...options });
    return { files, leftOut: [], [Symbol.asyncDispose]: () => spool[Symbol.asyncDispose]() };
  } catch (error) {
    await spool[Symbol.asyncDispose]();
    if (error instanceof AppError || options.signal.aborted || isSystemError(error)) throw error;
    const said = error instanceof Error ? error.message : String(error);
    const message = `the archive ${path} is damaged or incomplete (${said}); copy or download it again`;
    throw new AppError("DATASET_INVALID", message, { cause: error });
  }
}

interface UnpackOptions extends TarOptions {
  readonly spool: Spool;
  readonly guard: ArchiveGuard;
}

async function unpack(path: string, { spool, guard, gzipped, signal }: UnpackOptions): Promise<TreeFile[]> {
  const archive = extract();
  const packed = createReadStream(path, { highWaterMark: 1024 * 1024, signal });
  const feeding = gzipped
    ? pipeline(packed, createGunzip({ chunkSize: 256 * 1024 }), (unpacked) => feed(archive, unpacked, guard))
    : feed(archive, packed, guard);
  // Whichever of the two fails, the other is ended by the archive's being destroyed.
  const fed = feeding.catch((error: Error) => archive.destroy(error));
  const files: TreeFile[] = [];
  let end = 0;
  try {
    for await (const entry of archive) {
      const { name, type, size = 0 } = entry.header;
      guard.entry(name, type === "contiguous-file" ? "file" : (type ?? "file"));
      const filePath = name.replace(/^(\.\/)+/, "");
      const wanted = type !== "directory" && !isHidden(filePath);
      const start = end;
      for await (const chunk of entry as AsyncIterable<Uint8Array>) if (wanted) await spool.append(chunk);
      if (!wanted) continue;
      end += size;
      files.push({ path: filePath, sizeBytes: size, read: () => spool.read(start, size) });
    }
  } finally {
    archive.destroy(null);
    await fed;
  }
  await spool.flush();
  return files;
}

/** Writes a tar's bytes to its parser, no faster than it takes them. A refusal is passed on through the parser. */
async function feed(archive: Extract, bytes: AsyncIterable<Buffer>, guard: ArchiveGuard): Promise<void> {
  for await (const chunk of bytes) {
    try {
      guard.unpacked(chunk.length);
    } catch (error) {
      archive.destroy(AppError.from(error));
    }
    if (archive.destroying) return;
    if (!archive.write(chunk)) await drained(archive);
  }
  archive.end(undefined);
}

/** Resolves when a stream takes more, or never will. */
function drained(archive: Extract): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      archive.off("drain", done);
      archive.off("close", done);
      resolve();
    };
    archive.on("drain", done);
    archive.on("close", done);
  });
}

/** Whether an error came from the operating system (no space, no permission) rather than from the archive's content. */
function isSystemError(error: unknown): boolean {
  return error instanceof Error && "syscall" in error;
}

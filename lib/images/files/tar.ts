import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import { extract, type Header } from "tar-stream";
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

/** An entry as its content's stream. */
interface TarEntry extends AsyncIterable<Uint8Array> {
  readonly header: Header;
  resume(): void;
}

async function unpack(path: string, { spool, guard, gzipped, signal }: UnpackOptions): Promise<TreeFile[]> {
  // A stream by its behaviour, though its types are of another family than Node's.
  const archive = extract() as unknown as NodeJS.ReadWriteStream & AsyncIterable<TarEntry>;
  const files: TreeFile[] = [];
  let end = 0;
  const count = async function* (source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const chunk of source) {
      guard.unpacked(chunk.length);
      yield chunk;
    }
  };
  const spoolEntries = async (entries: AsyncIterable<TarEntry>): Promise<void> => {
    for await (const entry of entries) {
      const { name, type, size = 0 } = entry.header;
      guard.entry(name, type === "contiguous-file" ? "file" : (type ?? "file"));
      const wanted = type !== "directory" && !isHidden(name.replace(/^(\.\/)+/, ""));
      if (!wanted) {
        entry.resume();
        continue;
      }
      const start = end;
      for await (const chunk of entry) await spool.append(chunk);
      end += size;
      files.push({ path: name.replace(/^(\.\/)+/, ""), sizeBytes: size, read: () => spool.read(start, size) });
    }
  };
  const source = createReadStream(path, { highWaterMark: 1024 * 1024 });
  if (gzipped)
    await pipeline(source, createGunzip({ chunkSize: 256 * 1024 }), count, archive, spoolEntries, { signal });
  else await pipeline(source, count, archive, spoolEntries, { signal });
  await spool.flush();
  return files;
}

/** Whether an error came from the operating system (no space, no permission) rather than from the archive's content. */
function isSystemError(error: unknown): boolean {
  return error instanceof Error && "syscall" in error;
}

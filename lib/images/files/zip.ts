import { stat } from "node:fs/promises";
import type { Readable } from "node:stream";
import { type Entry, getFileNameLowLevel, openPromise, type ZipFile } from "yauzl";
import { AppError } from "../../errors.ts";
import { type ArchiveGuard, createArchiveGuard, isHidden } from "./archive-limits.ts";
import type { FileTree, FileTreeOptions, TreeFile } from "./file-tree.ts";

/** The file type in the upper half of a zip entry's external attributes, where a Unix system wrote it. */
const unixFileType = { mask: 0o170000, regular: 0o100000, directory: 0o040000, symbolicLink: 0o120000 };

/** A .zip as a tree of files. Its directory lists every file with its place, so files are read from the archive itself. */
export async function openZip(path: string, { limits, signal }: FileTreeOptions): Promise<FileTree> {
  const guard = createArchiveGuard(path, (await stat(path)).size, limits);
  let zip: ZipFile | undefined;
  try {
    // Undecoded names: the library would check them too, but say less about what it found.
    const opened = await openPromise(path, { autoClose: false, decodeStrings: false });
    zip = opened;
    const files = await list(opened, { path, guard, signal });
    return { files, leftOut: [], [Symbol.asyncDispose]: async () => opened.close() };
  } catch (error) {
    zip?.close();
    if (error instanceof AppError || signal.aborted) throw error;
    throw damaged(path, error);
  }
}

interface ListOptions {
  readonly path: string;
  readonly guard: ArchiveGuard;
  readonly signal: AbortSignal;
}

async function list(zip: ZipFile, { path, guard, signal }: ListOptions): Promise<TreeFile[]> {
  const files: TreeFile[] = [];
  for await (const entry of zip.eachEntry()) {
    signal.throwIfAborted();
    const name = getFileNameLowLevel(entry.generalPurposeBitFlag, entry.fileNameRaw, entry.extraFields, false);
    const kind = kindOf(entry, name);
    guard.entry(name, kind);
    // The directory's word for the size is kept to: reading an entry fails as soon as more comes out of it.
    guard.unpacked(entry.uncompressedSize);
    if (kind === "directory" || isHidden(name)) continue;
    files.push({ path: name, sizeBytes: entry.uncompressedSize, read: () => readEntry(zip, path, entry) });
  }
  return files;
}

function kindOf(entry: Entry, name: string): string {
  if (entry.isEncrypted()) return "file that is encrypted";
  const type = (entry.externalFileAttributes >>> 16) & unixFileType.mask;
  if (type === unixFileType.symbolicLink) return "symbolic link";
  if (type !== 0 && type !== unixFileType.regular && type !== unixFileType.directory) return "device";
  return name.endsWith("/") ? "directory" : "file";
}

async function readEntry(zip: ZipFile, path: string, entry: Entry): Promise<Uint8Array> {
  const bytes = new Uint8Array(entry.uncompressedSize);
  let held = 0;
  try {
    const stream: Readable = await zip.openReadStreamPromise(entry);
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      bytes.set(chunk, held);
      held += chunk.length;
    }
  } catch (error) {
    throw damaged(path, error);
  }
  return bytes;
}

function damaged(path: string, error: unknown): AppError {
  const said = error instanceof Error ? error.message : String(error);
  const message = `the archive ${path} is damaged or incomplete (${said}); copy or download it again`;
  return new AppError("DATASET_INVALID", message, { cause: error });
}

import { open, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { AppError } from "../../errors.ts";
import { withSpan } from "../../telemetry/spans.ts";
import type { LeftOut } from "../sources/source.ts";
import type { ArchiveLimits } from "./archive-limits.ts";
import { openFolder } from "./folder.ts";
import { openTar } from "./tar.ts";
import { openZip } from "./zip.ts";

/** A file that can be read at any time until its tree is disposed of. */
export interface TreeFile {
  /** Path within the tree: relative, with "/" between the parts. */
  readonly path: string;
  readonly sizeBytes: number;
  read(): Promise<Uint8Array>;
}

/** The files of a folder or archive, known as a whole before the first is read, each readable in any order. */
export interface FileTree extends AsyncDisposable {
  readonly files: readonly TreeFile[];
  /** What is there but is no file to read, such as a symbolic link in a folder. */
  readonly leftOut: readonly LeftOut[];
}

export interface FileTreeOptions {
  /** A folder in which an archive may be unpacked. */
  readonly cacheFolder: string;
  readonly signal: AbortSignal;
  readonly limits: ArchiveLimits;
}

/**
 * Opens a folder, .tar, .tar.gz or .zip; an archive is known by its first bytes, whatever its name.
 *
 * Hidden files and `__MACOSX` are left aside.
 *
 * @throws AppError DATASET_INVALID when the path does not exist, may not be read, or is none of these, or the archive is
 * damaged; ARCHIVE_REFUSED when an archive is unsafe to unpack; CONFIGURATION_INVALID when the cache folder cannot be written.
 */
export async function openFileTree(path: string, options: FileTreeOptions): Promise<FileTree> {
  try {
    const found = await stat(path);
    if (found.isDirectory()) return await openFolder(path, options.signal);
    const open = archiveOpener(await firstBytes(path, 512));
    if (open !== undefined) {
      const attributes = { "millrace.archive.size_bytes": found.size };
      return await withSpan("read archive", { attributes }, async (span) => {
        const tree = await open(path, options);
        span.setAttribute("millrace.files.count", tree.files.length);
        return tree;
      });
    }
  } catch (error) {
    throw explained(path, error);
  }
  const message = `${path} is neither a folder nor a .tar, .tar.gz or .zip archive; unpack it and name the folder`;
  throw new AppError("DATASET_INVALID", message);
}

type ArchiveOpener = (path: string, options: FileTreeOptions) => Promise<FileTree>;

function archiveOpener(start: Buffer): ArchiveOpener | undefined {
  if (start.readUInt16BE(0) === 0x1f8b) return (path, options) => openTar(path, { ...options, gzipped: true });
  if (start.toString("latin1", 0, 2) === "PK") return openZip;
  if (start.toString("latin1", 257, 262) !== "ustar") return undefined;
  return (path, options) => openTar(path, { ...options, gzipped: false });
}

async function firstBytes(path: string, count: number): Promise<Buffer> {
  const file = await open(path);
  try {
    const bytes = Buffer.alloc(count);
    await file.read(bytes, 0, count, 0);
    return bytes;
  } finally {
    await file.close();
  }
}

function explained(path: string, error: unknown): unknown {
  const { code, path: at = path } = error as NodeJS.ErrnoException;
  if (code === "ENOENT") {
    const sources = '"pictograms", "cifar10", or the path of a folder, .tar, .tar.gz or .zip of images';
    const message = `there is no data set ${JSON.stringify(path)} (looked for ${resolve(path)}); a source is ${sources}`;
    return new AppError("DATASET_INVALID", message, { cause: error });
  }
  if (code === "EACCES" || code === "EPERM") {
    const message = `${at} may not be read: permission denied; give the service's user the right to read it`;
    return new AppError("DATASET_INVALID", message, { cause: error });
  }
  if (code === "ENOSPC") {
    const message = `${path} cannot be unpacked: no space is left in the cache folder; make room or name another folder`;
    return new AppError("DATASET_INVALID", message, { cause: error });
  }
  return error;
}

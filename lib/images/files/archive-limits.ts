import { AppError } from "../../errors.ts";

/** How much an archive may unpack to. */
export interface ArchiveLimits {
  readonly maxEntries: number;
  /** Characters of an entry's path: each is kept in memory. */
  readonly maxNameLength: number;
  readonly maxUnpackedBytes: number;
  /** Unpacked bytes for each byte of the archive, looked at once `ratioFromBytes` are unpacked. */
  readonly maxRatio: number;
  readonly ratioFromBytes: number;
}

/**
 * Limits far above any archive of images: their files are compressed already, so an archive of them is hardly smaller
 * than they are. Tar pads small files with zeros, which gzip takes away again: hence the generous ratio.
 */
export const defaultArchiveLimits: ArchiveLimits = {
  maxEntries: 5_000_000,
  maxNameLength: 4_096,
  maxUnpackedBytes: 256 * 1024 ** 3,
  maxRatio: 100,
  ratioFromBytes: 16 * 1024 ** 2,
};

/** Looks at every entry of an archive before anything is made of it. */
export interface ArchiveGuard {
  /**
   * Counts an entry and checks its name.
   *
   * @param name as the archive has it, with "/" or "\" between the parts.
   * @param kind "file", "directory", or what else it is.
   */
  entry(name: string, kind: string): void;
  /** Counts unpacked bytes. */
  unpacked(bytes: number): void;
}

/**
 * A guard that throws ARCHIVE_REFUSED, naming archive and entry, at paths that lead out of the archive, at links and
 * devices, and when the archive unpacks to more than the limits allow.
 */
export function createArchiveGuard(path: string, archiveBytes: number, limits: ArchiveLimits): ArchiveGuard {
  let [entries, unpackedBytes] = [0, 0];
  const refuse = (reason: string): never => {
    throw new AppError("ARCHIVE_REFUSED", `the archive ${path} is refused: ${reason}`, { details: { path } });
  };
  return {
    entry(name, kind) {
      entries++;
      if (entries > limits.maxEntries) refuse(`it has more than ${limits.maxEntries} entries`);
      if (name.length > limits.maxNameLength) {
        refuse(`the path of an entry has ${name.length} characters, more than ${limits.maxNameLength}`);
      }
      const quoted = `its entry ${JSON.stringify(name)}`;
      const parts = name.split(/[/\\]/);
      if (parts[0] === "" || /^[a-z]:/i.test(name)) refuse(`${quoted} has an absolute path`);
      if (parts.includes("..")) refuse(`${quoted} leads out of the archive`);
      if (kind !== "file" && kind !== "directory") refuse(`${quoted} is no file but a ${kind}`);
    },
    unpacked(bytes) {
      unpackedBytes += bytes;
      if (unpackedBytes > limits.maxUnpackedBytes) refuse(`it unpacks to more than ${limits.maxUnpackedBytes} bytes`);
      const ratio = unpackedBytes / Math.max(archiveBytes, 1);
      if (unpackedBytes > limits.ratioFromBytes && ratio > limits.maxRatio) {
        refuse(`it unpacks to more than ${limits.maxRatio} times its size, as only a decompression bomb does`);
      }
    },
  };
}

/** Whether a path is for the computer rather than for people: a hidden file, or what macOS adds to archives. */
export function isHidden(path: string): boolean {
  return path.split("/").some((part) => part.startsWith(".") || part === "__MACOSX");
}

import { randomUUID } from "node:crypto";
import { mkdir, open, rename, rm, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { create } from "@bufbuild/protobuf";
import { type Artifact, ArtifactSchema } from "../../gen/millrace/v1/artifact_pb.ts";
import { removeAbandoned, unlessMissing } from "../abandoned-files.ts";
import { assertDigest, digestFromBytes, missingArtifact } from "./digest.ts";
import { readChunks, writeHashed } from "./file.ts";
import type { ArtifactSource, ArtifactStore, GetOptions, PutOptions } from "./store.ts";
import { chunksOf, defaultIdleTimeoutMs, isIntact, limited, verified } from "./transfer.ts";

export interface FolderStoreOptions {
  /** How long a source or the disk may stand still, in ms. Default: 30,000. */
  readonly idleTimeoutMs?: number;
}

/**
 * Artifacts as files of one folder, which several processes of one machine may share.
 *
 * An artifact is `sha256/ab/cdef...`, named by its digest. It is written to `incoming/` first, brought to disk, then
 * renamed: under its name there is a whole file or none, even after a crash in the middle.
 */
export async function openFolderStore(folder: string, options: FolderStoreOptions = {}): Promise<ArtifactStore> {
  const { idleTimeoutMs = defaultIdleTimeoutMs } = options;
  const root = resolve(folder);
  const incoming = join(root, "incoming");
  await mkdir(incoming, { recursive: true });
  await removeAbandoned(incoming);

  const limits = (what: string, signal: AbortSignal | undefined) => ({
    what: `${what} in ${root}`,
    idleTimeoutMs,
    signal,
  });

  async function statArtifact(digest: string) {
    assertDigest(digest);
    const found = await unlessMissing(stat(pathOf(root, digest)));
    return found && { sizeBytes: found.size };
  }

  async function* get(digest: string, { signal }: GetOptions = {}): AsyncGenerator<Uint8Array> {
    if ((await statArtifact(digest)) === undefined) throw missingArtifact(digest, root);
    yield* verified(limited(readChunks(pathOf(root, digest)), limits(`artifact ${digest}`, signal)), digest, root);
  }

  /** Whether the artifact is there and need not be written again. */
  async function holds(digest: string, signal: AbortSignal | undefined): Promise<boolean> {
    return (await statArtifact(digest)) !== undefined && isIntact(get(digest, signal && { signal }));
  }

  async function write(source: ArtifactSource, { name, signal }: PutOptions) {
    if (source instanceof Uint8Array) {
      const digest = digestFromBytes(source);
      if (await holds(digest, signal)) return { digest, sizeBytes: source.byteLength };
    }
    const temporary = join(incoming, randomUUID());
    try {
      const chunks = limited(chunksOf(source), limits(`the source of "${name}"`, signal));
      const written = await writeHashed(chunks, temporary, { durable: true });
      if (!(await holds(written.digest, signal))) await moveIntoPlace(temporary, pathOf(root, written.digest));
      return written;
    } finally {
      await rm(temporary, { force: true });
    }
  }

  return {
    async put(source: ArtifactSource, options: PutOptions): Promise<Artifact> {
      const { digest, sizeBytes } = await write(source, options);
      const { mediaType, name } = options;
      return create(ArtifactSchema, { digest, sizeBytes: BigInt(sizeBytes), mediaType, name });
    },
    get,
    stat: statArtifact,
    async [Symbol.asyncDispose]() {},
  };
}

function pathOf(root: string, digest: string): string {
  const hex = digest.slice("sha256:".length);
  return join(root, "sha256", hex.slice(0, 2), hex.slice(2));
}

async function moveIntoPlace(temporary: string, path: string): Promise<void> {
  const folder = dirname(path);
  const firstMade = await mkdir(folder, { recursive: true });
  await rename(temporary, path);
  await syncFolder(folder);
  if (firstMade === undefined) return;
  // A folder that was made has a new name itself, in the one above.
  for (let made = folder; made.length >= firstMade.length; made = dirname(made)) await syncFolder(dirname(made));
}

/** Brings the new name itself to disk. Windows has no such call and does not need it. */
async function syncFolder(folder: string): Promise<void> {
  if (process.platform === "win32") return;
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

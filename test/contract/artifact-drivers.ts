import { open, readdir, readFile, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { openFolderStore } from "../../lib/artifacts/folder-store.ts";
import { openObjectStore } from "../../lib/artifacts/object-store.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import { chunkSizeBytes } from "../../lib/artifacts/transfer.ts";
import { startNats } from "../helpers/nats-server.ts";
import { tempFolder } from "../helpers/temp-folder.ts";

/** A driver with its storage laid open, so that a test can look at it and damage it. */
export interface Driver {
  readonly store: ArtifactStore;
  /** The same storage with another idle limit. */
  reopen(idleTimeoutMs: number): Promise<ArtifactStore>;
  /** Everything that is stored, in a form to compare. Two equal snapshots: nothing was written in between. */
  snapshot(): Promise<unknown>;
  /** How many pieces (files, messages) make up all that is stored. */
  pieces(): Promise<number>;
  /** What open transfers hold: file handles, subscriptions, consumers. */
  openResources(): Promise<number>;
  /** Changes one byte of the artifact's last chunk. */
  flipByte(digest: string): Promise<void>;
  /** Cuts one byte off its end. */
  truncate(digest: string): Promise<void>;
  /** Takes its second chunk out. */
  removeChunk(digest: string): Promise<void>;
}

export const drivers: Record<
  string,
  { start(t: TestContext): Promise<Driver>; expectedPieces(chunks: number): number }
> = {
  "folder driver": { start: startFolder, expectedPieces: () => 1 },
  "object store driver": { start: startObjectStore, expectedPieces: (chunks) => chunks + 1 },
};

async function startFolder(t: TestContext): Promise<Driver> {
  const folder = await tempFolder(t);
  const pathOf = (digest: string) => join(folder, "sha256", digest.slice(7, 9), digest.slice(9));
  const files = async () => {
    const entries = await readdir(folder, { recursive: true, withFileTypes: true });
    return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  };
  return {
    store: await openFolderStore(folder),
    reopen: (idleTimeoutMs) => openFolderStore(folder, { idleTimeoutMs }),
    snapshot: async () =>
      Promise.all(
        (await files()).sort().map(async (path) => [path, (await stat(path)).ino, (await stat(path)).mtimeMs]),
      ),
    pieces: async () => (await files()).length,
    openResources: async () => (await readdir("/dev/fd")).length,
    async flipByte(digest) {
      const file = await open(pathOf(digest), "r+");
      const { size } = await file.stat();
      const { buffer } = await file.read(Buffer.alloc(1), 0, 1, size - 1);
      await file.write(Buffer.from([(buffer[0] ?? 0) ^ 1]), 0, 1, size - 1);
      await file.close();
    },
    truncate: async (digest) => truncate(pathOf(digest), (await stat(pathOf(digest))).size - 1),
    async removeChunk(digest) {
      const content = await readFile(pathOf(digest));
      const rest = [content.subarray(0, chunkSizeBytes), content.subarray(2 * chunkSizeBytes)];
      await writeFile(pathOf(digest), Buffer.concat(rest));
    },
  };
}

async function startObjectStore(t: TestContext): Promise<Driver> {
  const nats = await startNats(t);
  const nc = await connect({ servers: nats.url });
  t.after(() => nc.close());
  const bucket = "artifacts";
  const stream = `OBJ_${bucket}`;
  const store = await openObjectStore(nc, { bucket });
  const jsm = await jetstreamManager(nc);
  const state = async () => (await jsm.streams.info(stream)).state;

  /** Sequence numbers, subject and content of all chunks; the tests damage a store that holds one artifact. */
  async function chunks() {
    const found = [];
    const query = { next_by_subj: `$O.${bucket}.C.>` };
    let message = await jsm.streams.getMessage(stream, { seq: 1, ...query });
    while (message !== null) {
      found.push(message);
      message = await jsm.streams.getMessage(stream, { seq: message.seq + 1, ...query });
    }
    return found;
  }
  async function replaceLastChunk(change: (content: Uint8Array) => Uint8Array) {
    const last = (await chunks()).at(-1);
    if (last === undefined) throw new Error("there is no chunk");
    await jsm.streams.deleteMessage(stream, last.seq);
    await jetstream(nc).publish(last.subject, change(last.data));
  }
  return {
    store,
    reopen: (idleTimeoutMs) => openObjectStore(nc, { bucket, idleTimeoutMs }),
    snapshot: async () => [
      await state(),
      (await readdir(tmpdir())).filter((name) => name.startsWith("millrace-artifact")),
    ],
    pieces: async () => (await state()).messages,
    async openResources() {
      const response = await fetch(`${nats.monitorUrl}/connz`);
      const { connections } = (await response.json()) as { connections: { subscriptions: number }[] };
      const subscriptions = connections.reduce((sum, connection) => sum + connection.subscriptions, 0);
      return subscriptions + (await state()).consumer_count + (await readdir("/dev/fd")).length;
    },
    flipByte: () => replaceLastChunk((content) => content.with(-1, (content.at(-1) ?? 0) ^ 1)),
    truncate: () => replaceLastChunk((content) => content.slice(0, -1)),
    async removeChunk() {
      await jsm.streams.deleteMessage(stream, (await chunks())[1]?.seq ?? 0);
    },
  };
}

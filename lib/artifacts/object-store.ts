import { randomUUID } from "node:crypto";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ReadableStream } from "node:stream/web";
import { create } from "@bufbuild/protobuf";
import { type JetStreamManager, jetstream } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/nats-core";
import { type ObjectInfo, type ObjectStore, Objm, StorageType, setSha256Backend } from "@nats-io/obj";
import { type Artifact, ArtifactSchema } from "../../gen/millrace/v1/artifact_pb.ts";
import { removeAbandoned } from "../abandoned-files.ts";
import { assertDigest, digestFromBytes, missingArtifact } from "./digest.ts";
import { readChunks, writeHashed } from "./file.ts";
import { objectChunks } from "./object-chunks.ts";
import { isWriteConflict, translated } from "./object-store-errors.ts";
import type { ArtifactSource, ArtifactStore, GetOptions, PutOptions } from "./store.ts";
import {
  chunkSizeBytes,
  chunksOf,
  defaultIdleTimeoutMs,
  isIntact,
  limited,
  type TransferLimits,
  verified,
} from "./transfer.ts";

export interface ObjectStoreOptions {
  /** Name of the bucket: letters, digits, "-" and "_". Created if it is not there. */
  readonly bucket: string;
  /** How long a source or the server may stand still, in ms. Default: 30,000. */
  readonly idleTimeoutMs?: number;
  /** Servers that keep a copy. A bucket with fewer is given more, one with more keeps them. Default: 1. */
  readonly replicas?: number;
}

/** A source whose digest is known, and which can still be read. */
interface Spooled {
  readonly digest: string;
  readonly sizeBytes: number;
  read(): AsyncGenerator<Uint8Array>;
  remove(): Promise<void>;
}

/**
 * Artifacts as objects of one bucket in JetStream's Object Store, which any number of machines share. An object's name
 * is its digest; `nats object get` reads it like any other.
 *
 * The connection stays the caller's: disposing of the store does not close it. A process that is killed while it
 * uploads leaves chunks behind that no object refers to; they take space, and nothing else.
 */
export async function openObjectStore(nc: NatsConnection, options: ObjectStoreOptions): Promise<ArtifactStore> {
  const { bucket, idleTimeoutMs = defaultIdleTimeoutMs, replicas = 1 } = options;
  const where = `bucket ${bucket}`;
  setSha256Backend("native"); // of the whole process; the default is written in JavaScript and takes five times as long
  const client = jetstream(nc, { timeout: idleTimeoutMs });
  const jsm = await translated(where, () => client.jetstreamManager());
  const objects = await translated(where, () => openBucket(new Objm(client), bucket, replicas));
  await translated(where, () => raiseReplicas(jsm, `OBJ_${bucket}`, replicas));
  // They cost space in the system's folder, no more: one that cannot be removed is none of this store's business.
  await removeAbandoned(tmpdir(), (name) => name.startsWith(spoolPrefix)).catch(() => undefined);

  async function infoOf(digest: string): Promise<ObjectInfo | undefined> {
    assertDigest(digest);
    return (await translated(`artifact ${digest}`, () => objects.info(digest))) ?? undefined;
  }

  async function* get(digest: string, { signal }: GetOptions = {}): AsyncGenerator<Uint8Array> {
    const info = await infoOf(digest);
    if (info === undefined || info.deleted) throw missingArtifact(digest, where);
    const chunks = objectChunks(jsm, `OBJ_${bucket}`, info);
    yield* verified(limited(chunks, { idleTimeoutMs, signal, what: `artifact ${digest}` }), digest, where);
  }

  async function upload(content: Spooled, limits: TransferLimits): Promise<void> {
    const existing = await infoOf(content.digest);
    if (existing && !existing.deleted && (await isIntact(get(content.digest, signalOf(limits))))) return;
    const chunks = limited(content.read(), limits);
    try {
      await objects.put(
        { name: content.digest, options: { max_chunk_size: chunkSizeBytes } },
        ReadableStream.from(chunks),
        // Zero: only if there is none. Two writers at once would each leave chunks, and one set would have no owner.
        { timeout: idleTimeoutMs, previousRevision: existing?.revision ?? 0 },
      );
    } catch (error) {
      // Somebody else has stored the same content meanwhile, and `put` has removed our chunks.
      if (!isWriteConflict(error)) throw error;
    } finally {
      await chunks.return(undefined); // after a failure `put` leaves its source open
    }
  }

  return {
    async put(source: ArtifactSource, { mediaType, name, signal }: PutOptions): Promise<Artifact> {
      const limits = { idleTimeoutMs, signal, what: `the source of "${name}"` };
      const content = await spool(source, limits);
      try {
        await translated(`artifact ${content.digest}`, () => upload(content, limits));
      } finally {
        await content.remove();
      }
      const { digest, sizeBytes } = content;
      return create(ArtifactSchema, { digest, sizeBytes: BigInt(sizeBytes), mediaType, name });
    },
    get,
    async stat(digest: string) {
      const info = await infoOf(digest);
      return info === undefined || info.deleted ? undefined : { sizeBytes: info.size };
    },
    async [Symbol.asyncDispose]() {},
  };
}

/** Opens the bucket, and creates it only if it is missing: a service need not be allowed to create streams. */
async function openBucket(manager: Objm, bucket: string, replicas: number): Promise<ObjectStore> {
  try {
    return await manager.open(bucket);
  } catch {
    // Missing, which the library reports as an Error like any other; where something else is wrong, this fails as well.
    return manager.create(bucket, { replicas, storage: StorageType.File });
  }
}

/** For a bucket that was made when fewer servers were to keep a copy. */
async function raiseReplicas(jsm: JetStreamManager, stream: string, replicas: number): Promise<void> {
  if (replicas === 1) return;
  const { config } = await jsm.streams.info(stream);
  if (config.num_replicas < replicas) await jsm.streams.update(stream, { num_replicas: replicas });
}

const spoolPrefix = "millrace-artifact-";

/**
 * An object's name must be known before its first chunk is written, and the name is the digest of the last: a stream is
 * kept in a temporary file until it has ended. Nothing reaches the server from a source that fails, or that is there already.
 */
async function spool(source: ArtifactSource, limits: TransferLimits): Promise<Spooled> {
  if (source instanceof Uint8Array) {
    const { byteLength: sizeBytes } = source;
    return { digest: digestFromBytes(source), sizeBytes, read: () => chunksOf(source), remove: async () => {} };
  }
  const path = join(tmpdir(), `${spoolPrefix}${randomUUID()}`);
  const remove = () => rm(path, { force: true });
  try {
    const written = await writeHashed(limited(source, limits), path, { durable: false });
    return { ...written, read: () => readChunks(path), remove };
  } catch (error) {
    await remove();
    throw error;
  }
}

function signalOf({ signal }: TransferLimits): GetOptions {
  return signal === undefined ? {} : { signal };
}

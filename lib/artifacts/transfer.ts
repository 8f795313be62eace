import { createHash } from "node:crypto";
import { AppError } from "../errors.ts";
import { corruptArtifact, digestFromHash } from "./digest.ts";
import type { ArtifactSource } from "./store.ts";

/** How long a transfer may stand still unless the driver is told otherwise. */
export const defaultIdleTimeoutMs = 30_000;

/**
 * Size of the pieces in which artifacts are moved. It leaves room for headers below the 1 MiB that a NATS message may
 * have, and larger pieces are hardly faster.
 */
export const chunkSizeBytes = 512 * 1024;

export interface TransferLimits {
  /** Longest wait for one chunk, in ms. The time that the reader takes between chunks does not count. */
  readonly idleTimeoutMs: number;
  readonly signal: AbortSignal | undefined;
  /** For messages: "artifact sha256:... from file:store". */
  readonly what: string;
}

/** A source as a stream, whichever form it has. Bytes come in slices of `chunkSizeBytes`. */
export async function* chunksOf(source: ArtifactSource): AsyncGenerator<Uint8Array> {
  if (!(source instanceof Uint8Array)) return yield* source;
  for (let start = 0; start < source.byteLength; start += chunkSizeBytes) {
    yield source.subarray(start, start + chunkSizeBytes);
  }
}

/**
 * The same chunks, as long as they keep coming. Throws ARTIFACT_TIMEOUT when one takes longer than the idle limit, and
 * the signal's reason (CANCELLED, DEADLINE_EXCEEDED) when it aborts.
 */
export async function* limited(source: AsyncIterable<Uint8Array>, limits: TransferLimits): AsyncGenerator<Uint8Array> {
  const iterator = source[Symbol.asyncIterator]();
  let waiting = true;
  try {
    for (;;) {
      waiting = true;
      const step = await nextWithin(iterator, limits);
      waiting = false;
      if (step.done) return;
      yield step.value;
    }
  } finally {
    const closed = Promise.resolve(iterator.return?.());
    // A source that stands still would also never finish closing, so only one that moves is waited for.
    if (waiting) closed.catch(() => {});
    else await closed;
  }
}

/** The next chunk, or an error for the idle limit or the signal, whichever comes first. Leaves no timer behind. */
async function nextWithin(
  iterator: AsyncIterator<Uint8Array>,
  { idleTimeoutMs, signal, what }: TransferLimits,
): Promise<IteratorResult<Uint8Array>> {
  if (signal?.aborted) throw AppError.from(signal.reason);
  let release = () => {};
  const interrupted = new Promise<never>((_resolve, reject) => {
    const onIdle = () => reject(new AppError("ARTIFACT_TIMEOUT", `${what}: nothing came for ${idleTimeoutMs} ms`));
    const onAbort = () => reject(AppError.from(signal?.reason));
    const timer = setTimeout(onIdle, idleTimeoutMs);
    signal?.addEventListener("abort", onAbort, { once: true });
    release = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
    };
  });
  try {
    return await Promise.race([iterator.next(), interrupted]);
  } finally {
    release();
  }
}

/**
 * The same chunks, each one chunk late, so that the last is handed over only when the digest of the whole is right.
 * Throws ARTIFACT_CORRUPT instead of the last chunk otherwise. The source must not use a chunk's memory again.
 */
export async function* verified(
  source: AsyncIterable<Uint8Array>,
  digest: string,
  where: string,
): AsyncGenerator<Uint8Array> {
  const hash = createHash("sha256");
  let held: Uint8Array | undefined;
  let sizeBytes = 0;
  for await (const chunk of source) {
    hash.update(chunk);
    sizeBytes += chunk.byteLength;
    if (held !== undefined) yield held;
    held = chunk;
  }
  const actual = digestFromHash(hash);
  if (actual !== digest) throw corruptArtifact(digest, where, `its ${sizeBytes} bytes have the digest ${actual}`);
  if (held !== undefined) yield held;
}

/** Reads a stream to its end, to find out whether the store holds it undamaged. False for ARTIFACT_CORRUPT alone. */
export async function isIntact(chunks: AsyncIterable<Uint8Array>): Promise<boolean> {
  try {
    for await (const _chunk of chunks);
    return true;
  } catch (error) {
    if (error instanceof AppError && error.code === "ARTIFACT_CORRUPT") return false;
    throw error;
  }
}

import { AppError } from "../errors.ts";
import { corruptArtifact } from "./digest.ts";
import type { ArtifactStore } from "./store.ts";

export interface ReadOptions {
  /** The most that is taken into memory, in bytes. Default: 1 GiB. */
  readonly maxBytes?: number;
  /** Stops the transfer. */
  readonly signal?: AbortSignal;
}

/** A whole artifact in memory. Throws INVALID_REQUEST if it is larger than `maxBytes`, and what `get` throws. */
export async function readBytes(store: ArtifactStore, digest: string, options: ReadOptions = {}): Promise<Uint8Array> {
  const { maxBytes = 1024 ** 3, signal } = options;
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const chunk of store.get(digest, signal && { signal })) {
    sizeBytes += chunk.byteLength;
    if (sizeBytes > maxBytes) {
      throw new AppError(
        "INVALID_REQUEST",
        `artifact ${digest} has more than the ${maxBytes} bytes that are read here`,
        {
          details: { digest, maxBytes: String(maxBytes) },
        },
      );
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** A JSON artifact, for the caller to check. Throws ARTIFACT_CORRUPT if it is no JSON, and what `readBytes` throws. */
export async function readJson(store: ArtifactStore, digest: string, options: ReadOptions = {}): Promise<unknown> {
  const bytes = await readBytes(store, digest, options);
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw corruptArtifact(digest, "the store", `it is no JSON (${AppError.from(error).message})`);
  }
}

import type { Artifact } from "../../gen/millrace/v1/artifact_pb.ts";

/** Bytes to store: whole, or as a stream that is read once. */
export type ArtifactSource = Uint8Array | AsyncIterable<Uint8Array>;

export interface PutOptions {
  /** IANA media type, such as "application/json". */
  readonly mediaType: string;
  /** File name for people, such as "model.onnx". Not part of the identity. */
  readonly name: string;
  /** Stops the transfer. */
  readonly signal?: AbortSignal;
}

export interface GetOptions {
  /** Stops the transfer. */
  readonly signal?: AbortSignal;
}

/**
 * Objects named by the SHA-256 digest of their content ("sha256:" and 64 hexadecimal digits).
 *
 * Every driver keeps these promises, and one contract test holds them all to it:
 * - an artifact is written once: putting the same bytes again stores nothing and returns the same digest;
 * - an artifact is there as a whole or not at all, whatever happens while it is written;
 * - what is read is what was written: a byte flipped or missing is ARTIFACT_CORRUPT, naming the digest, before the last chunk is handed over as good;
 * - a transfer that stands still fails with ARTIFACT_TIMEOUT after the driver's idle limit; an unknown digest is ARTIFACT_NOT_FOUND.
 */
export interface ArtifactStore extends AsyncDisposable {
  /** Stores the source and returns its name, size and digest. */
  put(source: ArtifactSource, options: PutOptions): Promise<Artifact>;
  /** Streams an artifact. The iteration throws ARTIFACT_CORRUPT at its end if the content does not match the digest. */
  get(digest: string, options?: GetOptions): AsyncIterable<Uint8Array>;
  /** Size in bytes, or undefined if the store does not hold the artifact. */
  stat(digest: string): Promise<{ readonly sizeBytes: number } | undefined>;
}

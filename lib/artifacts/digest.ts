import { createHash, type Hash } from "node:crypto";
import { AppError } from "../errors.ts";

const digestForm = /^sha256:[0-9a-f]{64}$/;

/** Throws INVALID_REQUEST unless the text is "sha256:" and 64 lower-case hexadecimal digits. */
export function assertDigest(text: string): void {
  if (digestForm.test(text)) return;
  throw new AppError(
    "INVALID_REQUEST",
    `"${text}" is no artifact digest: "sha256:" and 64 lower-case hexadecimal digits are expected`,
    { details: { digest: text } },
  );
}

/** The digest of everything the SHA-256 hash was given. The hash cannot be used afterwards. */
export function digestFromHash(hash: Hash): string {
  return `sha256:${hash.digest("hex")}`;
}

/** The digest of bytes in memory. */
export function digestFromBytes(bytes: Uint8Array): string {
  return digestFromHash(createHash("sha256").update(bytes));
}

/** ARTIFACT_CORRUPT: the store holds something else under this digest than what it was given. */
export function corruptArtifact(digest: string, where: string, problem: string): AppError {
  return new AppError(
    "ARTIFACT_CORRUPT",
    `artifact ${digest} in ${where} is damaged: ${problem}; putting the same content again replaces it`,
    { details: { digest } },
  );
}

/** ARTIFACT_NOT_FOUND for a well-formed digest. */
export function missingArtifact(digest: string, where: string): AppError {
  return new AppError(
    "ARTIFACT_NOT_FOUND",
    `artifact ${digest} is not in ${where}; run the step that makes it again, or check that both services use one store`,
    { details: { digest } },
  );
}

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { type ErrorCode, errorTable } from "../../lib/errors.ts";

/** For `put`, where the name does not matter. */
export const about = { mediaType: "application/octet-stream", name: "test.bin" };

/** For `readBytes`, where the limit does not matter. */
export const all = { maxBytes: 64 * 1024 * 1024 };

/** The digest by which a store must name these bytes. */
export function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** The bytes as a stream. */
export async function* inPieces(bytes: Uint8Array, size: number) {
  for (let start = 0; start < bytes.byteLength; start += size) yield bytes.subarray(start, start + size);
}

/** A stream that stands still after its first chunk, for good. */
export async function* stalling(first: Uint8Array) {
  yield first;
  await new Promise(() => {});
}

/** For `assert.rejects`: an AppError with this code, whose message names the text. */
export function failsWith(code: ErrorCode, text = "") {
  assert.ok(code in errorTable);
  return (error: { code?: string; message: string }) => {
    assert.equal(error.code, code, error.message);
    assert.ok(error.message.includes(text), `"${error.message}" does not name ${text}`);
    return true;
  };
}

/** Waits until the condition holds, at most 20 s. */
export async function until(condition: () => Promise<boolean>, what: string): Promise<void> {
  for (const deadline = Date.now() + 20_000; !(await condition()); await delay(20)) {
    assert.ok(Date.now() < deadline, `not within 20 s: ${what}`);
  }
}

/** Asserting the errors that people get. */
import assert from "node:assert/strict";
import { AppError, type ErrorCode } from "../../../lib/errors.ts";

export async function assertRejects(promise: Promise<unknown>, code: ErrorCode, message: RegExp): Promise<void> {
  await assert.rejects(promise, (thrown) => isAppError(thrown, code, message));
}

export function isAppError(thrown: unknown, code: ErrorCode, message: RegExp): true {
  assert.ok(thrown instanceof AppError, `${thrown}`);
  assert.equal(thrown.code, code);
  assert.match(thrown.message, message);
  return true;
}

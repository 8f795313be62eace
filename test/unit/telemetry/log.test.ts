import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../../lib/errors.ts";
import { createLogger } from "../../../lib/log.ts";

function loggedBy(write: (logger: ReturnType<typeof createLogger>) => void): Record<string, unknown> {
  const lines: string[] = [];
  write(createLogger({ service: "training", destination: { write: (line) => lines.push(line) } }));
  assert.equal(lines.length, 1);
  return JSON.parse(lines[0] ?? "");
}

test("a line carries time, level, service, event and message", () => {
  const line = loggedBy((logger) => logger.info({ event: "model.loaded", version: 3 }, "model is live"));
  assert.match(String(line.time), /^\d{4}-\d\d-\d\dT/);
  const { level, service, event, version, message } = line;
  assert.deepEqual(
    { level, service, event, version, message },
    {
      level: "info",
      service: "training",
      event: "model.loaded",
      version: 3,
      message: "model is live",
    },
  );
});

test("an error is written with its code, message, whether to try again, stack and causes", () => {
  const cause = new TypeError("socket hang up");
  const thrown = new AppError("DOWNLOAD_FAILED", "could not fetch it", { details: { host: "example.org" }, cause });
  const { error } = loggedBy((logger) => logger.error({ event: "download.failed", error: thrown }));
  const { code, message, retryable, details, stack, cause: inner } = error as Record<string, unknown>;
  assert.deepEqual(
    [code, message, retryable, details],
    ["DOWNLOAD_FAILED", "could not fetch it", true, { host: "example.org" }],
  );
  assert.match(String(stack), /log\.test/);
  assert.equal((inner as Record<string, unknown>).message, "socket hang up");
});

test("a line below the level is not written", () => {
  const lines: string[] = [];
  createLogger({ service: "training", level: "warn", destination: { write: (line) => lines.push(line) } }).info(
    "quiet",
  );
  assert.deepEqual(lines, []);
});

test("a copy gets the same lines, of the same level and above", () => {
  const lines: string[] = [];
  const copied: string[] = [];
  const logger = createLogger({
    service: "training",
    level: "debug",
    destination: { write: (line) => lines.push(line) },
    copy: { write: (line) => copied.push(line) },
  });
  logger.trace("below the level");
  logger.debug({ event: "test.quiet" });
  logger.child({ stage: "training" }).error({ event: "test.loud" });
  assert.deepEqual(
    copied.map((line) => [JSON.parse(line).event, JSON.parse(line).level]),
    [
      ["test.quiet", "debug"],
      ["test.loud", "error"],
    ],
  );
  assert.deepEqual(copied, lines);
});

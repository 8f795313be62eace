import assert from "node:assert/strict";
import { test } from "node:test";
import { JetStreamApiError } from "@nats-io/jetstream";
import { errors } from "@nats-io/nats-core";
import { brokerErrorFrom } from "../../../lib/bus/broker-errors.ts";
import { AppError } from "../../../lib/errors.ts";

const answer = (err_code: number, description: string, code = 503) =>
  new JetStreamApiError({ err_code, description, code });
const codeOf = (thrown: unknown) => brokerErrorFrom(thrown, { failure: "it failed" }).code;

test("an answer of JetStream becomes the error that says what to do", () => {
  assert.equal(codeOf(answer(10077, "maximum bytes exceeded")), "STREAM_FULL");
  assert.equal(codeOf(answer(10077, "maximum messages exceeded")), "STREAM_FULL");
  assert.equal(codeOf(answer(10077, "store is closed")), "BROKER_UNAVAILABLE");
  assert.equal(codeOf(answer(10071, "wrong last sequence: 4", 400)), "CONFLICT");
  assert.equal(codeOf(answer(10164, "wrong last sequence", 400)), "CONFLICT");
  assert.equal(codeOf(answer(10054, "message size exceeds maximum allowed", 400)), "EVENT_INVALID");
  assert.equal(codeOf(answer(10118, "stream is offline", 500)), "BROKER_UNAVAILABLE");
  assert.equal(codeOf(answer(10008, "JetStream system temporarily unavailable")), "BROKER_UNAVAILABLE");
});

test("whatever the connection throws means waiting, unless waiting cannot help", () => {
  assert.equal(codeOf(new errors.TimeoutError()), "BROKER_UNAVAILABLE");
  assert.equal(codeOf(new errors.RequestError("connection disconnected")), "BROKER_UNAVAILABLE");
  assert.equal(codeOf("nothing sensible"), "BROKER_UNAVAILABLE");
  assert.equal(codeOf(new errors.InvalidSubjectError("a b")), "EVENT_INVALID");
  const refused = new errors.PermissionViolationError("Permissions Violation", "publish", "millrace.v1.a");
  assert.equal(codeOf(new errors.RequestError("refused", { cause: refused })), "CONFIGURATION_INVALID");
});

test("an error of ours stays as it is", () => {
  const error = new AppError("CONFLICT", "mine");
  assert.equal(brokerErrorFrom(error, { failure: "it failed" }), error);
});

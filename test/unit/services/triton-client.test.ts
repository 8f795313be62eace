/**
 * Triton's own Python clients against our server, unchanged. MILLRACE_TEST_TRITON_PYTHON is a Python that has them:
 * `pip install "tritonclient[grpc,http]"`.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { startOpenInference } from "../../helpers/open-inference-server.ts";

const python = process.env.MILLRACE_TEST_TRITON_PYTHON;
const skip = python === undefined && "MILLRACE_TEST_TRITON_PYTHON names no Python with Triton's clients";
const script = fileURLToPath(new URL("../../helpers/triton-client.py", import.meta.url));

test("Triton's gRPC and HTTP clients get the same answers", { skip }, async (t) => {
  const { address } = await startOpenInference(t);
  const { stdout } = await promisify(execFile)(python ?? "", [script, address]);
  const { error, ...answers } = JSON.parse(stdout) as Record<string, number[][]> & { error: string };
  assert.match(error, /there is no model "other" here, only "test"/);
  assert.deepEqual(Object.keys(answers), ["grpc", "http, binary", "http, json"]);
  const [expected = [], ...others] = Object.values(answers).map((rows) => rows.flat());
  assert.equal(expected.length, 6);
  for (const probabilities of others) {
    for (const [index, value] of probabilities.entries()) assert.ok(Math.abs(value - (expected[index] ?? 0)) < 1e-5);
  }
});

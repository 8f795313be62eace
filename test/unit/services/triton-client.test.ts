/**
 * Triton's own Python clients against our server, unchanged. MILLRACE_TEST_TRITON_PYTHON is a Python that has them:
 * `pip install "tritonclient[grpc,http]"`.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import sharp from "sharp";
import { startOpenInference } from "../../helpers/open-inference-server.ts";

const python = process.env.MILLRACE_TEST_TRITON_PYTHON;
const skip = python === undefined && "MILLRACE_TEST_TRITON_PYTHON names no Python with Triton's clients";
const script = fileURLToPath(new URL("../../helpers/triton-client.py", import.meta.url));

interface Said {
  /** Probabilities of each image, by what was asked and the form of the call. */
  readonly answers: Readonly<Record<string, Readonly<Record<string, number[][]>>>>;
  /** By wire and what was refused. */
  readonly errors: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

const forms = {
  pixels: ["grpc", "grpc, FP32", "grpc, gzip", "http", "http, FP32", "http, json", "http, gzip", "http, deflate"],
  image: ["grpc", "http", "http, json"],
  "version 2": ["grpc", "http"],
};

const refusals = {
  "another model": /there is no model "other" here, only "test"/,
  "another version": /model "test" has no version "9"/,
  "no image": /image 0 of input "image": /,
  "a configuration": /parameter "config" is not taken, only version; models are as the registry has them/,
  "unloading the champion": /version 1 of model "test" is the champion and cannot be unloaded/,
};

test("Triton's gRPC and HTTP clients get the same answers and the same errors, whatever form they choose", {
  skip,
}, async (t) => {
  const { address } = await startOpenInference(t);
  const create = { width: 20, height: 30, channels: 3, background: "#c08040" } as const;
  const image = (await sharp({ create }).png().toBuffer()).toString("base64");
  const { stdout } = await promisify(execFile)(python ?? "", [script, address, image]);
  const { answers, errors } = JSON.parse(stdout) as Said;

  for (const [asked, names] of Object.entries(forms)) {
    const answered = answers[asked] ?? {};
    assert.deepEqual(Object.keys(answered), names, asked);
    const [expected = [], ...others] = Object.values(answered).map((rows) => rows.flat());
    assert.equal(expected.length, asked === "image" ? 3 : 6);
    for (const probabilities of others) assert.ok(differenceOf(probabilities, expected) < 1e-5, asked);
  }
  const [first, second] = [answers.pixels?.grpc, answers["version 2"]?.grpc].map((rows) => rows?.flat() ?? []);
  assert.ok(differenceOf(first ?? [], second ?? []) > 1e-3, "both versions said the same");

  assert.deepEqual(Object.keys(errors), ["grpc", "http"]);
  for (const [wire, refused] of Object.entries(errors)) {
    for (const [what, message] of Object.entries(refusals))
      assert.match(refused[what] ?? "", message, `${wire}, ${what}`);
  }
});

function differenceOf(some: readonly number[], others: readonly number[]): number {
  return Math.max(...some.map((value, index) => Math.abs(value - (others[index] ?? Number.POSITIVE_INFINITY))));
}

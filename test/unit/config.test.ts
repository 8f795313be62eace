import assert from "node:assert/strict";
import { test } from "node:test";
import { z } from "zod";
import { defineConfig, describeConfig, loadConfig, maskCredentials } from "../../lib/config.ts";
import { AppError } from "../../lib/errors.ts";

const schema = defineConfig("training", {
  threads: z.coerce.number().int().min(1).default(2).describe("a number of threads, at least 1"),
  hubToken: z.string().default(""),
});

function problemsOf(env: NodeJS.ProcessEnv): string[] {
  try {
    loadConfig(schema, env);
  } catch (error) {
    assert.ok(error instanceof AppError && error.code === "CONFIGURATION_INVALID");
    return error.message
      .split("\n")
      .slice(1)
      .map((line) => line.trim());
  }
  return [];
}

test("an empty environment gives the defaults", () => {
  const config = loadConfig(schema, {});
  assert.equal(config.natsUrl, "nats://127.0.0.1:4222");
  assert.equal(config.artifacts, "file:.millrace/artifacts");
  assert.deepEqual([config.host, config.port], ["127.0.0.1", 7402]);
  assert.equal(config.threads, 2);
});

test("a service's own variable counts before the shared one, and an empty one counts as not set", () => {
  const env = { MILLRACE_TRAINING_PORT: "0", MILLRACE_PORT: "80", LOG_LEVEL: "warn", MILLRACE_TRAINING_LOG_LEVEL: "" };
  const config = loadConfig(schema, env);
  assert.deepEqual([config.port, config.logLevel], [0, "warn"]);
});

test("every problem is told at once, with the variable, its value and what is expected", () => {
  assert.deepEqual(problemsOf({ MILLRACE_PORT: "http", LOG_LEVEL: "loud", MILLRACE_TRAINING_THREADS: "0" }), [
    'MILLRACE_PORT is "http"; expected a port to listen on, 0 to 65535; 0 takes a free one',
    'LOG_LEVEL is "loud"; expected the least severe level that is written: trace, debug, info, warn, error, fatal, silent',
    'MILLRACE_TRAINING_THREADS is "0"; expected a number of threads, at least 1',
  ]);
});

test("an unknown variable is refused, with the one that was probably meant", () => {
  assert.deepEqual(
    problemsOf({ MILLRACE_NAT_URL: "nats://x", MILLRACE_TRAINING_THREDS: "2", MILLRACE_COLOUR: "red" }),
    [
      "MILLRACE_NAT_URL is not a setting; did you mean MILLRACE_NATS_URL?",
      "MILLRACE_TRAINING_THREDS is not a setting; did you mean MILLRACE_TRAINING_THREADS?",
      "MILLRACE_COLOUR is not a setting; unset it",
    ],
  );
});

test("one environment can start every service: the settings of the others are left to them", () => {
  assert.deepEqual(
    problemsOf({
      MILLRACE_PREDICTION_PORT: "x",
      MILLRACE_INGESTION_ANYTHING: "x",
      MILLRACE_CLI_COLOUR: "x",
      MILLRACE_SHARED_DATA: "x",
      PATH: "/bin",
    }),
    [],
  );
});

test("the configuration is frozen", () => {
  assert.ok(Object.isFrozen(loadConfig(schema, {})));
});

test("secrets and the credentials inside addresses are masked, in the description and in problems", () => {
  const config = loadConfig(schema, {
    MILLRACE_NATS_URL: "nats://me:swordfish@nats:4222",
    MILLRACE_TRAINING_HUB_TOKEN: "swordfish",
  });
  const described = describeConfig(config);
  assert.deepEqual([described.natsUrl, described.hubToken], ["nats://***@nats:4222", "***"]);
  assert.doesNotMatch(problemsOf({ MILLRACE_ARTIFACTS: "http://me:swordfish@host" }).join(), /swordfish/);
});

test("no part of an address that cannot be is shown that may be a password", () => {
  for (const url of ["nats://me:sword,fish@nats:4222", "swordfish@nats:4222", "me:sword/fish@nats"]) {
    const problems = problemsOf({ MILLRACE_NATS_URL: url }).join();
    assert.match(problems, /MILLRACE_NATS_URL is "\*\*\*@nats/);
    assert.doesNotMatch(problems, /sword|fish/);
  }
});

test("credentials are masked in every form of an address, and nothing else is", () => {
  for (const [text, expected] of [
    ["nats://me:swordfish@nats:4222", "nats://***@nats:4222"],
    ["nats://token@nats:4222", "nats://***@nats:4222"],
    ["me:swordfish@nats:4222", "***@nats:4222"],
    ["nats://me:sword@f/ish@nats:4222", "nats://***@nats:4222"],
    ["tls://a:b@one:4222,tls://c:d@two:4222,e:f@three", "tls://***@one:4222,tls://***@two:4222,***@three"],
    ["no server answers at me:swordfish@nats:4222; start one", "no server answers at ***@nats:4222; start one"],
    ["nats://127.0.0.1:4222", "nats://127.0.0.1:4222"],
    ["file:/home/me@work/artifacts", "file:/home/me@work/artifacts"],
    ["file:///home/me@work/artifacts", "file:///home/me@work/artifacts"],
  ] as const) {
    assert.equal(maskCredentials(text), expected);
  }
});

test("an address of nats-server has a scheme that the client speaks", () => {
  for (const url of ["nats://a:4222", "tls://a:4222", "nats://me:pw@a:4222,b:4222", "nats://a,tls://b:4222/"]) {
    assert.equal(loadConfig(schema, { MILLRACE_NATS_URL: url }).natsUrl, url);
  }
  for (const url of ["ws://a:80", "wss://a:443", "a:4222", "nats://", "nats://a:4222,ws://b", "nats://a, nats://b"]) {
    assert.match(problemsOf({ MILLRACE_NATS_URL: url }).join(), /expected the address of nats-server/, url);
  }
});

test("a folder of artifacts may have any name that a path may have, a bucket may not", () => {
  for (const artifacts of ["file:my artifacts/100% #1", "file:///my%20artifacts", "nats://bucket"]) {
    assert.equal(loadConfig(schema, { MILLRACE_ARTIFACTS: artifacts }).artifacts, artifacts);
  }
  for (const artifacts of ["file:", "nats://my bucket", "artifacts"]) {
    assert.match(problemsOf({ MILLRACE_ARTIFACTS: artifacts }).join(), /expected file:FOLDER or nats:/, artifacts);
  }
});

test("an engine that there is not is refused at once, with those that there are", () => {
  assert.deepEqual(problemsOf({ MILLRACE_ENGINE: "abacus" }), [
    'MILLRACE_ENGINE is "abacus"; expected onnxruntime, or tensorflow where the native library of @tensorflow/tfjs-node is installed',
  ]);
});

test("the stream of events holds 1 GiB, or what a person says, of 1 MiB and more", () => {
  assert.equal(loadConfig(schema, {}).maxEventBytes, 1_073_741_824);
  assert.equal(loadConfig(schema, { MILLRACE_MAX_EVENT_BYTES: "1048576" }).maxEventBytes, 1_048_576);
  assert.match(problemsOf({ MILLRACE_MAX_EVENT_BYTES: "1048575" }).join(), /expected the most bytes/);
});

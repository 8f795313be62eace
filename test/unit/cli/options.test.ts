import assert from "node:assert/strict";
import { test } from "node:test";
import { parseStartOptions, startUsage } from "../../../cli/start/options.ts";
import { networks } from "../../../lib/nn/networks.ts";

test("flags of the training become its hyper-parameters, over those of --set", async () => {
  const set = '{"optimizer":{"kind":"sgd","learningRate":1},"keep":"best","batchSize":7}';
  const flags = ["--set", set, "--learning-rate", "0.05", "--batch-size", "128", "--validation-share", "0.1"];
  const options = await parseStartOptions([...flags, "--max-minutes", "1.5"]);
  assert.deepEqual(options?.hyperparameters, {
    optimizer: { kind: "sgd", learningRate: 0.05 },
    keep: "best",
    batchSize: 128,
    validationShare: 0.1,
    maxMinutes: 1.5,
  });
});

test("what is not asked for is left to the network", async () => {
  const options = await parseStartOptions([]);
  assert.deepEqual([options?.hyperparameters, options?.epochs, options?.network], [{}, undefined, undefined]);
});

test("values that cannot be meant are refused by the option's name", async () => {
  for (const [args, message] of [
    [["--batch-size", "0"], /--batch-size 0: expected a whole number/],
    [["--learning-rate", "fast"], /--learning-rate fast: expected a number of at least 0/],
    [["--learning-rate", "Infinity"], /--learning-rate Infinity: expected a number of at least 0/],
    [["--validation-share", "1"], /--validation-share 1: expected a number from 0 to below 1/],
    [["--minimum-accuracy", "1.1"], /--minimum-accuracy 1.1: expected a number from 0 to 1/],
    [["--max-minutes", "-1"], /--max-minutes.* /],
    [["--max-minutes=-1"], /--max-minutes -1: expected a number of at least 0/],
    [["--set", "epochs=3"], /--set epochs=3: expected a JSON object/],
    [["--set", "[1]"], /--set \[1\]: expected a JSON object/],
    [["--set", '{"optimizer":"adam"}'], /--set: optimizer must be an object/],
  ] as const) {
    await assert.rejects(parseStartOptions([...args]), { code: "INVALID_REQUEST", message });
  }
});

test("the help names every network there is, and an option that there is not shows it", async () => {
  const [, names = ""] = /^ *--network NAME +(.*)$/m.exec(await startUsage()) ?? [];
  assert.deepEqual(
    names.split(/, | or /),
    networks.map(({ name }, index) => (index === 0 ? `${name} (default)` : name)),
  );
  await assert.rejects(parseStartOptions(["--layers", "3"]), { code: "INVALID_REQUEST", message: /--network NAME/ });
});

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { parseTrainingConfig } from "../../../lib/nn/configuration.ts";
import { supportedLayers } from "../../../lib/nn/layers.ts";
import { networks } from "../../../lib/nn/networks.ts";

const page = readFileSync(new URL("../../../docs/training.md", import.meta.url), "utf8");

/** What stands under a heading. */
function section(heading: string): string {
  const [text = ""] = page.split(/^## /m).filter((part) => part.startsWith(`${heading}\n`));
  return text;
}

/** The first cells of a section's table, each with the rest of its row. */
const rowsUnder = (heading: string): [string, string][] =>
  [...section(heading).matchAll(/^\| (`.*?) \| (.*) \|$/gm)].map(([, first = "", rest = ""]) => [first, rest]);

const namesIn = (text: string): string[] => [...text.matchAll(/`([^`\n]+)`/g)].map(([, name = ""]) => name);

/** What stands in the row of each hyper-parameter. */
const hyperparameters = new Map(
  rowsUnder("Hyper-parameters").flatMap(([keys, rest]) => namesIn(keys).map((key) => [key, rest] as const)),
);

/** Complete configurations in which every kind of optimiser, schedule and average occurs, everything else left to its default. */
const configs = [
  ["sgd", "constant", "none"],
  ["adam", "step", "ema"],
  ["adamw", "cosine", "lookahead"],
  ["muon", "one-cycle", "none"],
].map(([optimizer, schedule, average]) =>
  parseTrainingConfig({
    epochs: 1,
    batchSize: 1,
    optimizer: { kind: optimizer, learningRate: 1 },
    schedule: { kind: schedule },
    weightAveraging: { kind: average },
  }),
);

/** Each key with its value; a key within another as `outer.inner`. */
function settingsOf(config: object): [string, unknown][] {
  return Object.entries(config).flatMap(([key, value]): [string, unknown][] =>
    typeof value === "object" && !Array.isArray(value)
      ? settingsOf(value).map(([inner, innerValue]) => [`${key}.${inner}`, innerValue])
      : [[key, value]],
  );
}

const settings = configs.flatMap(settingsOf);

test("docs/training.md names every layer", () => {
  const named = namesIn(section("Layers"));
  assert.deepEqual(
    supportedLayers.filter((layer) => !named.includes(layer)),
    [],
  );
});

test("docs/training.md has every network and no other", () => {
  const named = rowsUnder("Networks").flatMap(([first]) => namesIn(first));
  assert.deepEqual(named.sort(), networks.map(({ name }) => name).sort());
});

test("docs/training.md has every hyper-parameter and its default", () => {
  for (const [key, value] of settings) {
    const [outer = "", inner = ""] = key.split(".");
    const text = Array.isArray(value) ? value.join(" and ") : String(value);
    const own = hyperparameters.get(key);
    // What only some kinds have stands in the row of the kind.
    if (own === undefined) assert.ok(hyperparameters.get(`${outer}.kind`)?.includes(`\`${inner}\` ${text}`), key);
    else if (inner === "kind") assert.ok(own.includes(`\`${text}\``), `${key}: ${text}`);
    else assert.match(own, new RegExp(`^(the network's|\`?${text}\\b)`), key);
  }
});

test("docs/training.md has no hyper-parameter that does not exist", () => {
  const known = settings.map(([key]) => key);
  assert.deepEqual(
    [...hyperparameters.keys()].filter((key) => !known.includes(key)),
    [],
  );
});

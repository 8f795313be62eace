import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { defineConfig, type ServiceName, servicePorts } from "../../../lib/config.ts";
import { startedConfig } from "./started-config.ts";

const page = readFileSync(new URL("../../../docs/concepts.md", import.meta.url), "utf8");

/** Default by variable, from the rows of the tables of settings. */
const documented = new Map(
  [...page.matchAll(/^\| `([A-Z_]+)` \| ([^|]+) \| [^|]+ \|$/gm)].map(([, name = "", fallback = ""]) => [
    name,
    fallback,
  ]),
);

const services = Object.keys(servicePorts) as ServiceName[];
const shared = Object.keys(defineConfig("pipeline", {}).shared.shape);
const upperSnake = (setting: string) => setting.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
const sharedVariable = (setting: string) => (setting === "logLevel" ? "LOG_LEVEL" : `MILLRACE_${upperSnake(setting)}`);

/** A default that is written as code is the value itself; others are described in words. */
function checkDefault(variable: string, value: unknown): void {
  const text = /^`(.*)`$/.exec(documented.get(variable) ?? "")?.[1];
  if (text !== undefined) assert.equal(text, String(value), variable);
}

test("docs/concepts.md has every setting that a service starts with, its default, and no other", async () => {
  const known = new Set(shared.map(sharedVariable));
  for (const service of services) {
    const config = await startedConfig(service, {});
    for (const [setting, value] of Object.entries(config)) {
      const variable = shared.includes(setting)
        ? sharedVariable(setting)
        : `MILLRACE_${service.toUpperCase()}_${upperSnake(setting)}`;
      known.add(variable);
      checkDefault(variable, value);
    }
  }
  assert.deepEqual([...documented.keys()].sort(), [...known].sort());
});

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const root = new URL("../../../", import.meta.url);
const read = (path: string) => readFileSync(new URL(path, root), "utf8");

interface Package {
  readonly license?: string;
  readonly dependencies?: Record<string, string>;
  readonly devDependencies?: Record<string, string>;
  readonly optionalDependencies?: Record<string, string>;
}

const { dependencies, devDependencies, optionalDependencies } = JSON.parse(read("package.json")) as Package;
const client = JSON.parse(read("client/package.json")) as Package;
const direct = { ...client.dependencies, ...dependencies, ...devDependencies, ...optionalDependencies };

/** Licence by package, from the rows of the tables whose first cell is a package. */
const documented = new Map(
  [...read("docs/dependencies.md").matchAll(/^\| `([^`]+)` \| ([^|]+) \| [^|]+ \| [^|]+ \| [^|]+ \|$/gm)].map(
    ([, name = "", licence = ""]) => [name, licence.trim()],
  ),
);

test("docs/dependencies.md has a row for each direct dependency, and for nothing else", () => {
  assert.deepEqual([...documented.keys()].sort(), Object.keys(direct).sort());
});

test("the licences in docs/dependencies.md are those of the installed packages", () => {
  for (const [name, licence] of documented) {
    const installed = licenceOf(name);
    // Only an optional dependency may be missing.
    if (installed === undefined) assert.ok(name in (optionalDependencies ?? {}), `${name} is not installed`);
    else assert.equal(licence, installed, name);
  }
});

test("the client depends on the versions that are tested here", () => {
  for (const [name, version] of Object.entries(client.dependencies ?? {})) {
    const installed = JSON.parse(read(`node_modules/${name}/package.json`)) as { version: string };
    assert.equal(version, installed.version, name);
    assert.equal(version, dependencies?.[name] ?? version, name);
  }
});

function licenceOf(name: string): string | undefined {
  try {
    return (JSON.parse(read(`node_modules/${name}/package.json`)) as Package).license;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

// Fails if gen/ is not what buf makes of proto/: generated code is committed, and never edited.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const fresh = mkdtempSync(join(tmpdir(), "millrace-gen-"));
try {
  execFileSync("buf", ["generate", "--output", fresh], { stdio: "inherit" });
  const [expected, actual] = [read(join(fresh, "gen")), read("gen")];
  const differing = [...new Set([...expected.keys(), ...actual.keys()])].filter(
    (path) => expected.get(path) !== actual.get(path),
  );
  if (differing.length > 0) {
    console.error(`gen/ does not match proto/: ${differing.join(", ")}\nRun "npm run generate" and commit the result.`);
    process.exitCode = 1;
  }
} finally {
  rmSync(fresh, { recursive: true });
}

/** Files below a folder by their path in it. */
function read(folder) {
  const paths = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((path) => path.endsWith(".ts"));
  return new Map(paths.map((path) => [path, readFileSync(join(folder, path), "utf8")]));
}

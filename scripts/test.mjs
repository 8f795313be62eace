// Runs the tests below test/, or those whose path contains one of the words given, in Node's own test runner.
// The list is made here because the runner of Node 20 takes no patterns.
import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { availableParallelism } from "node:os";

const words = process.argv.slice(2);
const files = readdirSync("test", { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith(".test.ts"))
  .map((path) => `test/${path.replaceAll("\\", "/")}`)
  .filter((path) => words.length === 0 || words.some((word) => path.includes(word)))
  .sort();

if (files.length === 0) {
  console.error(`no test file has one of these in its path: ${words.join(", ")}`);
  process.exit(1);
}

// End-to-end tests run a whole pipeline each and want the machine to themselves; they come last, one after another.
const isEndToEnd = (path) => /^test\/(e2e|telemetry)\//.test(path);
const groups = [
  { files: files.filter((path) => !isEndToEnd(path)), concurrency: availableParallelism() },
  { files: files.filter(isEndToEnd), concurrency: 1 },
].filter((group) => group.files.length > 0);

const totals = { passed: 0, failed: 0, skipped: 0 };
for (const group of groups) await runGroup(group);
console.log(`\n${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
process.exitCode = totals.failed === 0 ? 0 : 1;

function runGroup({ files: group, concurrency }) {
  const args = ["--import", "tsx", "--test", `--test-concurrency=${concurrency}`, "--test-reporter=spec", ...group];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  let tail = "";
  child.stdout.on("data", (chunk) => {
    process.stdout.write(chunk);
    tail = (tail + chunk).slice(-200_000);
  });
  return new Promise((resolve) => {
    child.on("close", (status) => {
      const read = (name) => Number(new RegExp(`^ℹ ${name} (\\d+)`, "m").exec(tail)?.[1] ?? 0);
      totals.passed += read("pass");
      totals.skipped += read("skipped");
      // A runner that died without a count is a failure too.
      totals.failed += Math.max(read("fail") + read("cancelled"), status === 0 ? 0 : 1);
      resolve();
    });
  });
}

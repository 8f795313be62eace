/** That the benchmark of serving runs, with so little load that it says nothing about speed. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import type { Table } from "../../bench/serving/table.ts";
import { tempFolder } from "../helpers/temp-folder.ts";

const root = join(import.meta.dirname, "../..");

test("the benchmark of serving measures each of its scenarios, and no request fails", async (t) => {
  const file = join(await tempFolder(t), "figures.json");
  const load = ["--rounds", "1", "--seconds", "0.2", "--warm-up", "0.1", "--in-flight", "2", "--swaps", "1"];
  const args = ["--import", "tsx", "bench/serving/serving.ts", ...load, "--json", file];
  // The Python servers are left out, as they are wherever they are not installed.
  const env = { ...process.env, MILLRACE_BENCH_PYTHON: join(root, "no-python-here") };
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: root, env });

  const { tables } = JSON.parse(await readFile(file, "utf8")) as { tables: Record<string, Table> };
  assert.deepEqual(Object.keys(tables), ["capacity", "overload", "swaps", "telemetry", "runtime", "peers"]);
  for (const { title, rows } of Object.values(tables)) {
    assert.ok(stdout.includes(title), `"${title}" is printed`);
    assert.ok(rows.length >= 2, `"${title}" has rows`);
    for (const { name, figures } of rows) {
      const { answered = [], failed = [] } = figures;
      assert.ok(answered.length > 0 && answered.every((rate) => rate > 0), `${name}: there are answers`);
      if (name.startsWith("ONNX Runtime alone")) continue;
      const none = answered.map(() => 0);
      assert.deepEqual(failed, none, name);
    }
  }
  assert.match(stdout, /MLServer, ModelInfer: not measured: .*no-python-here/);
});

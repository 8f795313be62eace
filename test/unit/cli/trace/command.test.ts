import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { text } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { parseTraceOptions } from "../../../../cli/trace/options.ts";
import { AppError } from "../../../../lib/errors.ts";
import { eventually } from "../../../helpers/bus.ts";
import { tempFolder } from "../../../helpers/temp-folder.ts";
import { beganMs, otlpLine } from "./traces.ts";

const program = fileURLToPath(new URL("../../../../cli/bootstrap.mjs", import.meta.url));

async function millrace(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const child = spawn(process.execPath, [program, "trace", ...args], {
    env: { ...process.env, INIT_CWD: process.cwd(), ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [out, err, [status]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, "close")]);
  return { out, err, status };
}

const newer = "c".repeat(32);
const inRun = (runId: string, fields: Readonly<Record<string, unknown>> = {}) => ({
  attributes: [{ key: "millrace.run.id", value: { stringValue: runId } }],
  ...fields,
});

/** A home folder in which two runs have left their traces, one of them in a rotated file, and half a line. */
async function homeFolder(t: TestContext): Promise<string> {
  const home = await tempFolder(t);
  await mkdir(join(home, "traces"));
  const later = `${beganMs + 60_000}000000`;
  const times = { startTimeUnixNano: later, endTimeUnixNano: later };
  const child = { parentSpanId: "00f067aa0ba902b7", spanId: "00f067aa0ba902b8", name: "child" };
  const files = {
    "training-local.jsonl": [
      otlpLine("training", inRun("run-2", { traceId: newer, ...times })),
      '{"resourceSpans":[{"re',
    ],
    "training-local.jsonl.1": [otlpLine("training", inRun("run-1", { name: "older" }))],
    "ingestion-local.jsonl": [otlpLine("ingestion", { traceId: newer, ...times, ...child }), ""],
    "notes.txt": ["not a trace"],
  };
  for (const [name, lines] of Object.entries(files)) await writeFile(join(home, "traces", name), lines.join("\n"));
  return home;
}

test("without an argument the newest run is drawn, from all files, with broken lines counted and the way to Jaeger", async (t) => {
  const home = await homeFolder(t);
  const { out, err, status } = await millrace(["--home", home]);
  assert.equal(status, 0, err);
  assert.match(out, /^Run run-2\ntrace c{32}\n.*2 spans/);
  assert.match(out, /child ingestion/);
  assert.match(out, /cat \$\(ls -r .*traces\/\*\) > traces\.jsonl/);
  assert.match(err, /^Lines left out, .*: 1$/m);
});

test("a run is found by its id, and a trace by its own, in a file that is named too", async (t) => {
  const home = await homeFolder(t);
  assert.match((await millrace(["run-1", "--home", home])).out, /older training/);
  const file = join(home, "traces", "training-local.jsonl");
  assert.match((await millrace([newer.toUpperCase(), "--file", file])).out, /^Run run-2\n/);
});

test("what is not there is an error that says what is", async (t) => {
  const home = await homeFolder(t);
  const { err, status } = await millrace(["run-9", "--home", home]);
  assert.equal(status, 1);
  assert.match(err, /no run or trace "run-9" in these files; there are the runs run-2, run-1/);
  assert.match((await millrace(["--home", join(home, "nowhere")])).err, /there are no traces in .*nowhere.*npm start/);
  assert.match((await millrace(["--file", join(home, "none.jsonl")])).err, /there is no file .*none\.jsonl/);
  assert.match((await millrace(["--file", home])).err, /cannot be read: EISDIR/);
  const noRun = join(home, "no-run.jsonl");
  await writeFile(noRun, otlpLine("x", {}));
  assert.match((await millrace(["--file", noRun])).err, /no run in these files; traces in them: 1, none of a run/);
});

test("--html writes the page and says where it is", async (t) => {
  const home = await homeFolder(t);
  const page = join(home, "page.html");
  assert.match((await millrace(["--home", home, "--html", page])).out, /The trace is in .*page\.html/);
  assert.match(await readFile(page, "utf8"), /<title>Run run-2<\/title>/);
});

test("--open gives the page to the desktop's opener, and says where it is when there is none", {
  skip: process.platform !== "linux" && "the opener of another platform cannot be replaced",
}, async (t) => {
  const home = await homeFolder(t);
  const told = join(home, "told");
  await writeFile(join(home, "xdg-open"), `#!/bin/sh\nprintf %s "$1" > '${told}'\n`);
  await chmod(join(home, "xdg-open"), 0o755);
  const path = `${home}${delimiter}${process.env.PATH}`;
  const page = join(home, "page.html");
  assert.equal((await millrace(["--home", home, "--html", page, "--open"], { PATH: path })).status, 0);
  await eventually("the opener", async () => (await readFile(told, "utf8").catch(() => "")) === page);

  const { out } = await millrace(["--home", home, "--open"], { PATH: join(home, "empty"), TMPDIR: home });
  const [, written = ""] = /The trace is in (\S+trace\.html)\. Nothing here opens it/.exec(out) ?? [];
  assert.match(await readFile(written, "utf8"), /Run run-2/);
});

test("a reader that has seen enough is no failure", async (t) => {
  const file = join(await tempFolder(t), "many.jsonl");
  const lines = Array.from({ length: 5_000 }, (_, index) =>
    otlpLine("training", inRun("run-1", { spanId: index.toString(16).padStart(16, "0"), name: `name ${index}` })),
  );
  await writeFile(file, lines.join("\n"));
  const child = spawn(process.execPath, [program, "trace", "--file", file], { stdio: ["ignore", "pipe", "pipe"] });
  child.stdout.once("data", () => child.stdout.destroy());
  const [err, [status]] = await Promise.all([text(child.stderr), once(child, "exit")]);
  assert.deepEqual([err, status], ["", 0]);
});

test("options that are wrong are named", () => {
  const refusal = (args: string[]) => {
    try {
      parseTraceOptions(args);
    } catch (thrown) {
      return AppError.from(thrown).message;
    }
    return "";
  };
  assert.match(refusal(["--hmtl"]), /--hmtl/);
  assert.match(refusal(["one", "two"]), /one run or trace at a time, not one two/);
  assert.equal(parseTraceOptions(["--help"]), undefined);
});

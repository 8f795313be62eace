import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { promisify } from "node:util";
import { eventually } from "../helpers/bus.ts";
import { tempFolder } from "../helpers/temp-folder.ts";

const quick = ["--limit", "20", "--epochs", "1", "--minimum-accuracy", "0"];
const startDeadlineMs = 180_000;

interface Started {
  readonly child: ChildProcess;
  readonly output: () => string;
}

/** The newcomer's command, in a process group of its own as in a terminal. */
function start(t: TestContext, home: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Started {
  const child = spawn("npm", ["--silent", "start", "--", "--home", home, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
    env: { ...process.env, ...env },
  });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on("data", (chunk: Buffer) => {
      text += chunk;
    });
  }
  t.after(() => {
    const running = child.exitCode === null && child.signalCode === null;
    if (running && child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
  });
  return { child, output: () => text };
}

async function finished({ child, output }: Started): Promise<{ status: number | null; text: string }> {
  if (child.exitCode === null && child.signalCode === null)
    await once(child, "exit", { signal: AbortSignal.timeout(startDeadlineMs) });
  return { status: child.exitCode, text: output() };
}

/** Processes of a start that still live: those that it has logged, and those that name its folder, as nats-server does. */
async function survivors(home: string): Promise<number[]> {
  return [...(await livingServices(home)), ...(await namingFolder(home))];
}

async function namingFolder(home: string): Promise<number[]> {
  const { stdout } = await promisify(execFile)("ps", ["-eo", "pid=,args="]);
  const lines = stdout.split("\n").filter((line) => line.includes(home));
  return lines.map((line) => Number.parseInt(line, 10));
}

async function livingServices(home: string): Promise<number[]> {
  const logs = join(home, "logs");
  const pids = new Set<number>();
  for (const file of await readdir(logs)) {
    for (const [, pid] of (await readFile(join(logs, file), "utf8")).matchAll(/"pid":(\d+)/g)) pids.add(Number(pid));
  }
  return [...pids].filter((pid) => {
    try {
      return process.kill(pid, 0);
    } catch {
      return false;
    }
  });
}

test("npm start -- --exit shows the whole run and ends with status 0; a second start knows the first", async (t) => {
  const home = await tempFolder(t);
  const first = await finished(start(t, home, [...quick, "--exit"]));
  assert.equal(first.status, 0, first.text);
  for (const part of [
    /broker +nats-server \d/,
    /ingestion +200 training and \d+ test images/,
    /epoch 1 of 1: loss/,
    /accuracy .* interval/,
    /airplane +\d/,
    /Gate: promoted/,
    /version 1 of model "default" is live/,
    /Predictions by model "default" version 1/,
    /Curves of the training: .*\.svg/,
    /Trace of the run: [0-9a-f]{32}/,
    /npm run trace -- \S+ --home \S+/,
  ]) {
    assert.match(first.text, part);
  }
  assert.equal(first.text.match(/\.png /g)?.length, 3, "three image files are classified");
  assert.deepEqual(await survivors(home), []);

  const second = await finished(start(t, home, [...quick, "--exit"]));
  assert.equal(second.status, 0, second.text);
  assert.match(second.text, /Earlier runs\n +\S+ .* pictograms {2}default version 1, accuracy .* succeeded/);
});

test("without --exit it stays up, the commands that it prints work, and Ctrl-C leaves no process behind", async (t) => {
  // A space and a quote, as folders of people have them.
  const home = join(await tempFolder(t), "Anna's runs");
  const started = start(t, home, quick);
  await eventually("it says that it stays up", () => /until Ctrl-C/.test(started.output()), startDeadlineMs);
  for (const command of ["curl", "npx buf curl"]) {
    const line = started
      .output()
      .split("\n")
      .find((text) => text.includes(`| ${command} `));
    assert.ok(line, `a ${command} command is printed`);
    const { stdout } = await promisify(execFile)("sh", ["-c", line]);
    assert.equal(JSON.parse(stdout).predictions.length, 3, stdout);
  }
  const trace = started
    .output()
    .split("\n")
    .find((text) => text.includes("npm run trace"));
  const { stdout: drawn } = await promisify(execFile)("sh", ["-c", trace ?? ""]);
  assert.match(drawn, /process model\.trained evaluation[\s\S]*Critical path/);
  // A terminal sends Ctrl-C to the whole foreground group; the services are in groups of their own.
  process.kill(-(started.child.pid ?? 0), "SIGINT");
  const { text } = await finished(started);
  assert.match(text, /Everything has stopped\./);
  await eventually("no process is left", async () => (await survivors(home)).length === 0);
});

test("a run that fails says why and ends with status 1", async (t) => {
  const home = await tempFolder(t);
  const empty = await tempFolder(t);
  const { status, text } = await finished(start(t, home, ["--exit", "--dataset", empty]));
  assert.equal(status, 1, text);
  assert.match(text, /Failed: run \S+: DATASET_INVALID/);
});

test("a service that cannot start ends it at once, with the reason", async (t) => {
  const home = await tempFolder(t);
  const started = start(t, home, ["--exit"], { MILLRACE_REPLICAS: "many" });
  const { status, text } = await finished(started);
  assert.equal(status, 1, text);
  assert.match(text, /MILLRACE_REPLICAS is "many"/);
  assert.deepEqual(await survivors(home), []);
});

test("a broker that dies ends it, with the reason", async (t) => {
  const home = await tempFolder(t);
  const started = start(t, home, quick);
  await eventually("it is up", () => started.output().includes("Predictions by model"), startDeadlineMs);
  for (const pid of await namingFolder(join(home, "nats"))) process.kill(pid, "SIGKILL");
  const { status, text } = await finished(started);
  assert.equal(status, 1, text);
  assert.match(text, /nats-server was ended by SIGKILL/);
  assert.deepEqual(await survivors(home), []);
});

test("a disk without room for the streams ends it at once, with the reason", async (t) => {
  const home = await tempFolder(t);
  const started = start(t, home, ["--exit"], { MILLRACE_MAX_EVENT_BYTES: String(2 ** 50) });
  const { status, text } = await finished(started);
  assert.equal(status, 1, text);
  assert.match(text, /insufficient storage.*free space.*MILLRACE_MAX_EVENT_BYTES/);
  assert.deepEqual(await survivors(home), []);
});

test("a command line that cannot be meant is refused before anything starts", async (t) => {
  const home = await tempFolder(t);
  for (const [args, reason] of [
    [["--epochs", "0"], /--epochs 0: expected a whole number/],
    [["--dataset", "no/such/folder"], /no such file or folder/],
    [["--colour"], /Unknown option '--colour'/],
    [["--minimum-accuracy", "high"], /expected a number from 0 to 1/],
  ] as const) {
    const { status, text } = await finished(start(t, home, args));
    assert.equal(status, 1, text);
    assert.match(text, reason);
  }
});

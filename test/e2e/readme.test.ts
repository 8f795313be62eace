import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { promisify } from "node:util";
import sharp from "sharp";
import { eventually } from "../helpers/bus.ts";
import { startNats } from "../helpers/nats-server.ts";
import { smallRun, startPlatform } from "../helpers/platform.ts";
import { tempFolder } from "../helpers/temp-folder.ts";

const readme = await readFile(new URL("../../README.md", import.meta.url), "utf8");
const blocks = [...readme.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, block = ""]) => block);

/** The block of commands in the README that contains a text, with other words put in. */
function commands(containing: string, replacements: readonly (readonly [string, string])[]): string {
  const block = blocks.find((text) => text.includes(containing));
  assert.ok(block, `the README has a block with ${containing}`);
  return replacements.reduce((text, [from, to]) => {
    assert.ok(text.includes(from), `the README's block has ${from}`);
    return text.replaceAll(from, to);
  }, block);
}

/** A shell in a process group of its own, killed with all its children when the test ends. */
function startShell(
  t: TestContext,
  script: string,
  env: NodeJS.ProcessEnv = {},
): { child: ChildProcess; output: () => string } {
  const child = spawn("sh", ["-c", script], {
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
    if (child.exitCode === null && child.signalCode === null) process.kill(-(child.pid ?? 0), "SIGKILL");
  });
  return { child, output: () => text };
}

test("the README's prediction works as it stands", async (t) => {
  const platform = await startPlatform(t);
  const { run } = await platform.run({ spec: smallRun });
  await platform.answersWith(run.modelVersion);
  const file = join(await tempFolder(t), "image.png");
  await sharp({ create: { width: 32, height: 32, channels: 3, background: "#3366cc" } })
    .png()
    .toFile(file);
  const script = commands("PredictionService/Predict", [
    [".millrace/samples/airplane.png", file],
    ["127.0.0.1:7404", new URL(platform.services.urls.prediction).host],
  ]);
  const { stdout } = await promisify(execFile)("sh", ["-c", script]);
  assert.equal(JSON.parse(stdout).predictions.length, 3);
});

test("the README's service alone starts against any broker and stops in an orderly way", async (t) => {
  const nats = await startNats(t);
  const script = commands("npm run service", [["nats://127.0.0.1:4222", nats.url]]);
  const artifacts = `file:${await tempFolder(t)}`;
  const { child, output } = startShell(t, script, { MILLRACE_TRAINING_PORT: "0", MILLRACE_ARTIFACTS: artifacts });
  await eventually("the service is ready", () => output().includes('"service.ready"'), 60_000);
  process.kill(-(child.pid ?? 0), "SIGTERM");
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  await eventually("it says that it has stopped", () => output().includes('"service.stopped"'));
});

test("the README names only scripts and files that are there", async () => {
  const { scripts } = JSON.parse(await readFile(new URL("../../package.json", import.meta.url), "utf8"));
  for (const [, name = ""] of readme.matchAll(/npm (?:run )?(start|test|service|trace|check)\b/g))
    assert.ok(scripts[name], name);
  for (const [, path = ""] of readme.matchAll(/\]\((?!https?:)([^)#]+)/g)) {
    await readFile(new URL(`../../${path}`, import.meta.url)).catch((error: NodeJS.ErrnoException) => {
      assert.equal(error.code, "EISDIR", path);
    });
  }
});

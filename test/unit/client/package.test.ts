/** The package as a stranger gets it: built, packed, installed into an empty folder. */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { delimiter, join } from "node:path";
import { text } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { build } from "esbuild";
import manifest from "../../../client/package.json" with { type: "json" };
import { createStack } from "../../helpers/stack.ts";
import { tempFolder } from "../../helpers/temp-folder.ts";
import { startServer } from "../rpc/server-fixture.ts";

const root = join(import.meta.dirname, "../../..");
const run = promisify(execFile);
const npm = (cwd: string, ...args: string[]) => run("npm", args, { cwd, shell: process.platform === "win32" });

/** What the package depends on, linked to what is installed here, so that installing it needs no registry. */
const dependencies = Object.keys(manifest.dependencies);

const stack = createStack();
let folder = "";

before(async () => {
  const built = join(await tempFolder(stack), "package");
  await npm(root, "run", "build", "--workspace=client", "--", built);
  folder = await tempFolder(stack);
  await npm(root, "pack", `--pack-destination=${folder}`, built);
  const files = (await readdir(folder)).map((name) => `./${name}`);
  await writeFile(join(folder, "package.json"), '{ "private": true, "type": "module" }');
  const linked = dependencies.map((name) => join(root, "node_modules", name));
  await npm(folder, "install", "--offline", "--ignore-scripts", ...files, ...linked);
});
after(() => stack.dispose());

/** The same in Node and in a browser: a call, an error, a stream that is left. `report` is a function that takes what came of it. */
const program = (url: string, report: string) => `
  import { createMillraceClient, reasonOf } from "@millrace/client";
  import { Priority } from "@millrace/client/gen/millrace/v1/prediction_pb";
  const millrace = createMillraceClient({ baseUrl: "${url}", retries: 0 });
  const predict = (text) => millrace.predictions.predict({
    input: { case: "image", value: new TextEncoder().encode(text) },
    priority: Priority.HIGH,
  });
  const { predictions } = await predict("cat");
  const reason = await predict("missing").catch(reasonOf);
  let watched;
  for await (const { run } of millrace.pipeline.watchRun({ runId: "run-1" })) {
    watched = run.runId;
    break;
  }
  (${report})(predictions[0].label + " " + reason + " " + watched);
`;
const outcome = "cat MODEL_NOT_READY run-1";

test("it runs in plain Node, without OpenTelemetry", async (t) => {
  const { url } = await startServer(t);
  await writeFile(join(folder, "program.js"), program(url, "console.log"));
  const { stdout } = await run(process.execPath, ["program.js"], { cwd: folder });
  assert.equal(stdout.trim(), outcome);
  assert.deepEqual(await readdir(join(folder, "node_modules")), [
    ".package-lock.json",
    "@bufbuild",
    "@connectrpc",
    "@grpc",
    "@millrace",
  ]);
});

test("its types are those of the contracts", async () => {
  const source = `
    import { createMillraceClient } from "@millrace/client";
    import type { PredictResponse } from "@millrace/client/gen/millrace/v1/prediction_pb";
    const millrace = createMillraceClient({ baseUrl: ["http://127.0.0.1:7404"], deadlineMs: 1_000 });
    export const answer: Promise<PredictResponse> = millrace.predictions.predict({ topK: 3 });
    // @ts-expect-error: a number is not a string
    export const wrong = millrace.predictions.predict({ topK: "3" });
    export async function labels(): Promise<string[]> {
      for await (const { run } of millrace.pipeline.watchRun({ runId: "run-1" })) return [run?.runId ?? ""];
      return [];
    }
  `;
  await writeFile(join(folder, "program.ts"), source);
  const options = [
    "--noEmit",
    "--strict",
    "--target",
    "es2023",
    "--module",
    "nodenext",
    "--lib",
    "es2023,dom,dom.iterable",
  ];
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  await run(process.execPath, [tsc, ...options, "--types", "", "program.ts"], { cwd: folder });
});

/** The program for browsers, in one file. */
async function bundle(url: string, report: string): Promise<string> {
  const { outputFiles } = await build({
    stdin: { contents: program(url, report), resolveDir: folder },
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    platform: "browser",
  });
  return outputFiles[0]?.text ?? "";
}

test("its browser entry bundles without anything of Node, and calls over fetch", async (t) => {
  const { url, logLines } = await startServer(t);
  const code = await bundle(url, "console.log");
  assert.doesNotMatch(code, /node:|http2|grpc-js/);
  const path = join(folder, "bundle.mjs");
  await writeFile(path, code);
  const { stdout } = await run(process.execPath, [path], { cwd: await tempFolder(t) });
  assert.equal(stdout.trim(), outcome);
  assert.equal(logLines.find(({ event }) => event === "rpc.call")?.protocol, "connect");
});

/** The program of a Chromium on the PATH, as Debian and Ubuntu call it. */
const chromium = (process.env.PATH ?? "")
  .split(delimiter)
  .map((directory) => join(directory, "chromium"))
  .find((path) => existsSync(path));
const skip = chromium === undefined && "there is no chromium on the PATH";

test("it calls from a page of another origin, in Chromium", { skip }, async (t) => {
  let code = "";
  let receive = (_result: string) => {};
  const received = new Promise<string>((resolve) => {
    receive = resolve;
  });
  const page = createServer(async (request, response) => {
    if (request.method === "POST") receive(await text(request));
    response.writeHead(200, { "content-type": "text/html" });
    response.end(`<!doctype html><script type="module">${code}</script>`);
  });
  page.listen(0, "127.0.0.1");
  await once(page, "listening");
  t.after(() => page.close());
  const origin = `http://127.0.0.1:${(page.address() as AddressInfo).port}`;
  const server = await startServer(t, { corsOrigins: [origin] });
  code = await bundle(server.url, '(body) => fetch("/", { method: "POST", body })');
  const profile = `--user-data-dir=${await tempFolder(t)}`;
  const browser = spawn(chromium ?? "", ["--headless", "--no-sandbox", "--disable-gpu", profile, origin], {
    stdio: "ignore",
  });
  const ended = once(browser, "exit");
  server.closeLater(() => browser.kill());
  const died = ended.then(([status]) => assert.fail(`chromium ended with status ${status}`));
  assert.equal(await Promise.race([received, died]), outcome);
  browser.kill();
  await ended;
});

test("what is packed is code, types, licence and README", async () => {
  const packed = join(folder, "node_modules/@millrace/client");
  assert.deepEqual((await readdir(packed)).sort(), ["LICENSE", "README.md", "client", "gen", "package.json"]);
  const published = await readFile(join(packed, "package.json"), "utf8");
  assert.doesNotMatch(published, /\.ts"|"private"/);
});

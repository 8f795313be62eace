import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { access, chmod, mkdir, readdir, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { pack } from "tar-stream";
import { ZipFile } from "yazl";
import { debianPackage } from "../../../lib/nats-server/debian-package.ts";
import { officialRelease, type ReleaseOptions } from "../../../lib/nats-server/official-release.ts";
import { compareVersions } from "../../../lib/nats-server/program.ts";
import { provisionNatsServer } from "../../../lib/nats-server/provisioning.ts";
import { findNatsServer } from "../../../lib/nats-server/server-binary.ts";
import { tempFolder } from "../../helpers/temp-folder.ts";

const run = promisify(execFile);
const archive = "nats-server-v2.11.1-linux-amd64.tar.gz";
const release = { version: "2.11.1", platform: "linux", arch: "x64" } as const;

test("a server is taken from NATS_SERVER_BIN, then PATH, then the cache, then a source", async (t) => {
  const folder = await tempFolder(t);
  const cacheFolder = join(folder, "cache");
  const chosen = await program(join(folder, "chosen"), "2.12.0");
  const onPath = await program(join(folder, "path"), "2.11.0");
  const cached = await program(join(cacheFolder, "nats-server", "2.10.27"), "2.10.27");
  await program(join(cacheFolder, "nats-server", "2.10.3"), "2.10.3");
  const PATH = `${join(folder, "empty")}:${join(folder, "path")}`;

  const first = await findNatsServer({ env: { NATS_SERVER_BIN: chosen, PATH }, cacheFolder });
  assert.deepEqual(first, { path: chosen, version: "2.12.0" });
  assert.deepEqual(await findNatsServer({ env: { PATH }, cacheFolder }), { path: onPath, version: "2.11.0" });
  assert.deepEqual(await findNatsServer({ env: {}, cacheFolder }), { path: cached, version: "2.10.27" });

  const source = { name: "a source", fetch: (work: string) => program(work, "2.11.5") };
  const fetched = await findNatsServer({ env: {}, cacheFolder: join(folder, "fresh"), sources: [source] });
  assert.equal(fetched.path, join(folder, "fresh", "nats-server", "2.11.5", "nats-server"));
});

test("a server on PATH that is too old or does not run is passed over with a line that says why", async (t) => {
  const folder = await tempFolder(t);
  const cached = await program(join(folder, "cache", "nats-server", "2.10.27"), "2.10.27");
  for (const [version, reason] of [
    ["2.9.9", /2\.9\.9.*needs 2\.9\.10/],
    ["broken", /did not answer/],
  ] as const) {
    await program(join(folder, version), version);
    const lines: string[] = [];
    const onProgress = (line: string) => lines.push(line);
    const env = { PATH: join(folder, version) };
    assert.equal((await findNatsServer({ env, cacheFolder: join(folder, "cache"), onProgress })).path, cached);
    assert.match(lines.join("\n"), reason);
  }
});

test("a server that a person chose and that cannot serve is an error, not passed over", async (t) => {
  const folder = await tempFolder(t);
  const tooOld = await program(folder, "2.2.0");
  for (const path of [tooOld, join(folder, "missing")]) {
    await assert.rejects(findNatsServer({ env: { NATS_SERVER_BIN: path }, cacheFolder: folder }), (error: Error) => {
      assert.match(error.message, /NATS_SERVER_BIN/);
      assert.ok(error.message.includes(path), error.message);
      return (error as { code?: string }).code === "CONFIGURATION_INVALID";
    });
  }
});

test("the official release is unpacked from its archive when its checksum is the published one", async (t) => {
  const content = await tarball(script("2.11.1"));
  const baseUrl = await releaseHost(t, { [archive]: content, SHA256SUMS: sums(archive, content) });
  const cacheFolder = await tempFolder(t);
  const sources = [officialRelease({ ...release, baseUrl })];
  const found = await provisionNatsServer({ cacheFolder, sources, onProgress: () => {} });
  assert.deepEqual(found, { path: join(cacheFolder, "nats-server", "2.11.1", "nats-server"), version: "2.11.1" });
  assert.deepEqual(await readdir(join(cacheFolder, "nats-server")), ["2.11.1"], "nothing else is left behind");
});

test("the release for Windows is unpacked from a .zip", async (t) => {
  const file = "nats-server-v2.11.1-windows-amd64.zip";
  const content = await zip(script("2.11.1"));
  const baseUrl = await releaseHost(t, { [file]: content, SHA256SUMS: sums(file, content) });
  const path = await officialRelease({ ...release, platform: "win32", baseUrl }).fetch(await tempFolder(t));
  await access(path);
});

test("a release that is damaged, unlisted, missing or silent is refused with the reason", async (t) => {
  const content = await tarball(script("2.11.1"));
  const refuses = async (files: Record<string, Buffer | string>, reason: RegExp, options: ReleaseOptions = {}) => {
    const baseUrl = await releaseHost(t, files);
    const folder = await tempFolder(t);
    await assert.rejects(officialRelease({ ...release, baseUrl, ...options }).fetch(folder), reason);
    assert.deepEqual(await readdir(folder), []);
  };
  const other = Buffer.from("something else");
  await refuses(
    { [archive]: content, SHA256SUMS: sums(archive, other) },
    /SHA-256 [0-9a-f]{64}, but [0-9a-f]{64} is published/,
  );
  await refuses({ [archive]: content, SHA256SUMS: sums("other.tar.gz", content) }, /does not list/);
  await refuses({ SHA256SUMS: sums(archive, content) }, /status 404/);
  await refuses({ SHA256SUMS: "silence" }, /no answer within 100 ms/, { answerTimeoutMs: 100 });
  const empty = await tarball(script("2.11.1"), "README.md");
  await refuses({ [archive]: empty, SHA256SUMS: sums(archive, empty) }, /holds no nats-server/);
  const damaged = content.subarray(0, content.byteLength / 2);
  await refuses({ [archive]: damaged, SHA256SUMS: sums(archive, damaged) }, /unexpected end/i);
  await refuses({}, /no release for aix/, { platform: "aix" });
});

test("four processes that provision at once end with one program that runs", async (t) => {
  const folder = await tempFolder(t);
  const cacheFolder = join(folder, "cache");
  const code = `
    import { copyFile } from "node:fs/promises";
    import { provisionNatsServer } from ${JSON.stringify(import.meta.resolve("../../../lib/nats-server/provisioning.ts"))};
    const fetch = async (work) => {
      await copyFile(${JSON.stringify(await program(folder, "2.11.5"))}, work + "/fetched");
      return work + "/fetched";
    };
    const options = { cacheFolder: ${JSON.stringify(cacheFolder)}, sources: [{ name: "a source", fetch }] };
    console.log((await provisionNatsServer({ ...options, onProgress: () => {} })).path);`;
  const provision = () => run(process.execPath, ["--import", "tsx", "--input-type=module", "-e", code]);
  for (const { stdout } of await Promise.all(Array.from({ length: 4 }, provision))) {
    assert.equal(stdout.trim(), join(cacheFolder, "nats-server", "2.11.5", "nats-server"));
  }
  assert.deepEqual(await readdir(join(cacheFolder, "nats-server")), ["2.11.5"]);
  assert.deepEqual(await readdir(join(cacheFolder, "nats-server", "2.11.5")), ["nats-server"]);
});

test("when nothing can be had, the error lists what was tried and what a person can do", async (t) => {
  const failing = (name: string) => ({ name, fetch: () => Promise.reject(new Error(`${name} is closed`)) });
  const sources = [failing("the first source"), failing("the second source")];
  await assert.rejects(findNatsServer({ env: {}, cacheFolder: await tempFolder(t), sources }), (error: Error) => {
    const expected = [
      "the first source is closed",
      "the second source is closed",
      "NATS_SERVER_BIN",
      "MILLRACE_NATS_URL",
    ];
    for (const text of expected) assert.ok(error.message.includes(text), error.message);
    return (error as { code?: string }).code === "DOWNLOAD_FAILED";
  });
});

test("a cache folder that cannot be written is an error with what a person can do, also without it", async (t) => {
  const cacheFolder = join(await tempFolder(t), "file");
  await writeFile(cacheFolder, "in its place");
  await assert.rejects(findNatsServer({ env: {}, cacheFolder, sources: [] }), {
    code: "CONFIGURATION_INVALID",
    message: /cannot be written: .*XDG_CACHE_HOME.*NATS_SERVER_BIN.*MILLRACE_NATS_URL/s,
  });
});

test("Debian's package gives a server that runs, without root and without the system's package lists", async (t) => {
  const folder = await tempFolder(t);
  for (const [index, source] of debianPackage().entries()) {
    const cacheFolder = join(folder, String(index));
    try {
      const { version } = await provisionNatsServer({ cacheFolder, sources: [source], onProgress: () => {} });
      assert.ok(compareVersions(version, "2.9.10") >= 0, version);
    } catch (error) {
      const unreachable =
        /runs neither|apt-get ENOENT|Could not (resolve|connect)|Temporary failure|does not run Debian/;
      if (!unreachable.test((error as Error).message)) throw error;
      t.skip(`no mirror of Debian here: ${(error as Error).message}`);
    }
  }
});

test("versions are compared by their numbers", () => {
  assert.deepEqual(["2.10.3", "2.9.10", "2.10.27"].sort(compareVersions), ["2.9.10", "2.10.3", "2.10.27"]);
});

/** A program that answers `--version` as nats-server does. */
function script(version: string): string {
  return `#!/bin/sh\necho "nats-server: v${version}"\n`;
}

async function program(folder: string, version: string): Promise<string> {
  await mkdir(folder, { recursive: true });
  const path = join(folder, "nats-server");
  await writeFile(path, script(version));
  await chmod(path, 0o755);
  return path;
}

async function tarball(content: string, name = "nats-server"): Promise<Buffer> {
  const tar = pack();
  tar.entry({ name: "nats-server-v2.11.1-linux-amd64/LICENSE" }, "Apache-2.0");
  tar.entry({ name: `nats-server-v2.11.1-linux-amd64/${name}` }, content);
  tar.finalize();
  return gzipSync(await whole(tar as AsyncIterable<Uint8Array>));
}

async function zip(content: string): Promise<Buffer> {
  const file = new ZipFile();
  file.addBuffer(Buffer.from("Apache-2.0"), "nats-server-v2.11.1-windows-amd64/LICENSE");
  file.addBuffer(Buffer.from(content), "nats-server-v2.11.1-windows-amd64/nats-server.exe");
  file.end();
  return whole(file.outputStream as NodeJS.ReadableStream);
}

async function whole(stream: AsyncIterable<Uint8Array | string>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(Buffer.from(chunk as Uint8Array));
  return Buffer.concat(chunks);
}

function sums(file: string, content: Buffer): string {
  const digest = createHash("sha256").update(content).digest("hex");
  return `${"0".repeat(64)}  another-file.zip\n${digest}  ${file}\n`;
}

/** Serves the files below /v2.11.1/; a file with the content "silence" is never answered. */
async function releaseHost(t: TestContext, files: Record<string, Buffer | string>): Promise<string> {
  const server = createServer((request, response) => {
    const content = files[request.url?.replace("/v2.11.1/", "") ?? ""];
    if (content === "silence") return;
    response.statusCode = content === undefined ? 404 : 200;
    response.end(content);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

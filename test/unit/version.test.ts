import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cp, mkdir, realpath, writeFile } from "node:fs/promises";
import { devNull } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { tempFolder } from "../helpers/temp-folder.ts";

const git = (folder: string, ...args: string[]) =>
  execFileSync("git", ["-c", "user.name=test", "-c", "user.email=test@localhost", ...args], {
    cwd: folder,
    env: { ...process.env, GIT_CONFIG_GLOBAL: devNull },
    encoding: "utf8",
  }).trim();

/** What a copy of this package in a folder takes itself for. */
async function versionIn(folder: string, question: string): Promise<string> {
  const url = pathToFileURL(join(await realpath(folder), "lib", "version.ts"));
  const copy = (await import(`${url}?${question}`)) as typeof import("../../lib/version.ts");
  return copy.codeVersion();
}

test("the code's version names the commit of its own repository, and says when files differ from it", async (t) => {
  const outer = await tempFolder(t);
  const folder = join(outer, "millrace");
  await mkdir(folder);
  for (const path of ["lib/version.ts", "package.json"]) {
    await cp(new URL(`../../${path}`, import.meta.url), join(folder, path));
  }
  git(outer, "init", "--quiet");
  git(outer, "add", ".");
  git(outer, "commit", "--quiet", "--message=outer");
  const plain = await versionIn(folder, "in-another-repository");
  assert.match(plain, /^\d+\.\d+\.\d+$/);

  git(folder, "init", "--quiet");
  git(folder, "add", ".");
  git(folder, "commit", "--quiet", "--message=own");
  git(folder, "tag", "v9");
  const commit = git(folder, "rev-parse", "--short=12", "HEAD");
  assert.equal(await versionIn(folder, "clean"), `${plain}+${commit}`);

  await writeFile(join(folder, "package.json"), '{ "type": "module", "version": "0.0.0" }');
  assert.equal(await versionIn(folder, "changed"), `${plain}+${commit}-dirty`);
});

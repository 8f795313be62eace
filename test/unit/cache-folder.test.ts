import assert from "node:assert/strict";
import { chmod, mkdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { makeCacheFolder, userCacheFolder } from "../../lib/cache-folder.ts";
import { tempFolder } from "../helpers/temp-folder.ts";

const refused = (path: string) => ({
  code: "CONFIGURATION_INVALID",
  message: new RegExp(
    `the cache folder ${path} cannot be written: E.*; set XDG_CACHE_HOME, or MILLRACE_INGESTION_CACHE`,
  ),
});

test("the cache folder follows the platform's custom", () => {
  assert.equal(userCacheFolder({ XDG_CACHE_HOME: "/cache" }), join("/cache", "millrace"));
  assert.match(userCacheFolder({}, "linux"), /\.cache.millrace$/);
  assert.match(userCacheFolder({}, "darwin"), /Library.Caches.millrace$/);
});

test("a cache folder is made with the folders above it, and used again", async (t) => {
  const path = join(await tempFolder(t), "a", "b");
  await makeCacheFolder(path);
  await makeCacheFolder(path);
  assert.ok((await stat(path)).isDirectory());
});

test("a cache folder with a file in its place, or above it, is refused with what to set", async (t) => {
  const file = join(await tempFolder(t), "file");
  await writeFile(file, "in the way");
  for (const path of [file, join(file, "below")]) await assert.rejects(makeCacheFolder(path), refused(path));
});

test("a cache folder of somebody else is refused with what to set", {
  skip: process.getuid?.() === 0 && "permissions do not bind root",
}, async (t) => {
  const path = join(await tempFolder(t), "theirs");
  await mkdir(path);
  await chmod(path, 0o500);
  await assert.rejects(makeCacheFolder(path), refused(path));
});

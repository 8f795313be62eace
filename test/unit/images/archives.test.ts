import assert from "node:assert/strict";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { describe, it, type TestContext } from "node:test";
import { gzipSync } from "node:zlib";
import { type Header, pack } from "tar-stream";
import { ZipFile } from "yazl";
import { defaultArchiveLimits } from "../../../lib/images/files/archive-limits.ts";
import { type FileTree, openFileTree } from "../../../lib/images/files/file-tree.ts";
import { tempFolder } from "../../helpers/temp-folder.ts";
import { packTar, packTarGz, packZip, plainImage } from "./inputs.ts";

const megabyte = 1024 * 1024;

/** Opens an archive of these bytes; `folder` is where it lies and is unpacked. */
async function openArchive(t: TestContext, bytes: Buffer, limits = {}): Promise<{ tree: FileTree; folder: string }> {
  const folder = await tempFolder(t);
  const path = join(folder, "archive");
  await writeFile(path, bytes);
  const signal = new AbortController().signal;
  const tree = await openFileTree(path, {
    cacheFolder: folder,
    signal,
    limits: { ...defaultArchiveLimits, ...limits },
  });
  t.after(() => tree[Symbol.asyncDispose]());
  return { tree, folder };
}

async function packEntries(...entries: readonly (Partial<Header> & { name: string })[]): Promise<Buffer> {
  const archive = pack();
  for (const entry of entries) archive.entry({ size: 0, ...entry }).end(undefined);
  archive.finalize();
  return buffer(archive as unknown as AsyncIterable<Uint8Array>);
}

/** A zip whose entry has another name than yazl would write: the same number of characters, put in its place. */
async function packRenamed(name: string): Promise<Buffer> {
  const innocent = "x".repeat(name.length);
  const zip = await packZip({ [innocent]: Buffer.from("content") });
  return Buffer.from(zip.toString("latin1").replaceAll(innocent, name), "latin1");
}

describe("an archive", () => {
  const packers = { tar: packTar, "tar.gz": packTarGz, zip: packZip };
  for (const [kind, packFiles] of Object.entries(packers)) {
    it(`as ${kind} gives each file's bytes, in any order`, async (t) => {
      const files = { "a/1": Buffer.alloc(3 * megabyte, 1), "a/2": Buffer.from("two"), "b/3": Buffer.alloc(0) };
      const { tree } = await openArchive(t, await packFiles(files));
      assert.deepEqual(
        tree.files.map(({ path, sizeBytes }) => [path, sizeBytes]),
        [
          ["a/1", 3 * megabyte],
          ["a/2", 3],
          ["b/3", 0],
        ],
      );
      for (const file of tree.files.toReversed()) {
        assert.ok(Buffer.from(await file.read()).equals(files[file.path as keyof typeof files]));
      }
    });
  }

  it("leaves nothing in the cache folder when it is unpacked", async (t) => {
    const { folder } = await openArchive(t, await packTarGz({ "a/1": Buffer.from("one") }));
    assert.deepEqual(await readdir(folder), ["archive"]);
  });

  it("is not to blame for a cache folder that cannot be written", async (t) => {
    const path = join(await tempFolder(t), "archive");
    await writeFile(path, await packTarGz({ "a/1": Buffer.from("one") }));
    const { signal } = new AbortController();
    await assert.rejects(openFileTree(path, { cacheFolder: path, signal, limits: defaultArchiveLimits }), {
      code: "CONFIGURATION_INVALID",
      message: /the cache folder .* cannot be written: .*MILLRACE_INGESTION_CACHE_FOLDER/,
    });
  });
});

describe("a damaged archive", () => {
  const damaged = {
    code: "DATASET_INVALID",
    message: /archive .* is damaged or incomplete .* copy or download it again/,
  };

  it("is refused when a .tar.gz ends too soon", async (t) => {
    const whole = await packTarGz({ "a/1.png": Buffer.from(Array.from({ length: 5000 }, (_, n) => (n * n) % 251)) });
    await assert.rejects(openArchive(t, whole.subarray(0, whole.length - 100)), damaged);
  });

  it("is refused when a .tar ends in the middle of a file", async (t) => {
    const whole = await packTar({ "a/1.png": Buffer.alloc(50_000, 7) });
    await assert.rejects(openArchive(t, whole.subarray(0, 30_000)), damaged);
  });

  it("is refused when a .zip ends too soon", async (t) => {
    const whole = await packZip({ "a/1.png": await plainImage("#abc") });
    await assert.rejects(openArchive(t, whole.subarray(0, whole.length - 30)), damaged);
  });

  it("is refused when a file's bytes in a .zip are not what was packed", async (t) => {
    const bytes = await packZip({ "a/1.txt": Buffer.from("hello hello hello hello hello") });
    const data = bytes.indexOf("a/1.txt") + "a/1.txt".length;
    bytes[data] = (bytes[data] ?? 0) ^ 0xff;
    const { tree } = await openArchive(t, bytes);
    await assert.rejects(async () => tree.files[0]?.read(), damaged);
  });
});

describe("an unsafe archive", () => {
  const tars: Readonly<Record<string, { entry: Partial<Header> & { name: string }; says: RegExp }>> = {
    "a path that leads out of it": {
      entry: { name: "a/../../etc/passwd" },
      says: /entry "a\/..\/..\/etc\/passwd" leads out/,
    },
    "an absolute path": { entry: { name: "/etc/passwd" }, says: /entry "\/etc\/passwd" has an absolute path/ },
    "a drive's letter": { entry: { name: "C:\\windows\\x" }, says: /has an absolute path/ },
    "a symbolic link": {
      entry: { name: "a/link", type: "symlink", linkname: "/etc/passwd" },
      says: /"a\/link" is no file but a symlink/,
    },
    "a hard link": { entry: { name: "a/link", type: "link", linkname: "/etc/passwd" }, says: /is no file but a link/ },
    "a device": { entry: { name: "a/null", type: "character-device" }, says: /is no file but a character-device/ },
  };
  for (const [what, { entry, says }] of Object.entries(tars)) {
    it(`is refused with ${what} in a .tar`, async (t) => {
      await assert.rejects(openArchive(t, await packEntries(entry)), { code: "ARCHIVE_REFUSED", message: says });
    });
  }

  for (const name of ["../../etc/passwd", "/etc/passwd", "a\\..\\..\\passwd"]) {
    it(`is refused with the path ${name} in a .zip`, async (t) => {
      await assert.rejects(openArchive(t, await packRenamed(name)), { code: "ARCHIVE_REFUSED", message: /its entry/ });
    });
  }

  it("is refused with a symbolic link in a .zip", async (t) => {
    const archive = new ZipFile();
    archive.addBuffer(Buffer.from("/etc/passwd"), "a/link", { mode: 0o120777 });
    archive.end();
    const bytes = await buffer(archive.outputStream as unknown as AsyncIterable<Uint8Array>);
    await assert.rejects(openArchive(t, bytes), {
      code: "ARCHIVE_REFUSED",
      message: /"a\/link" is no file but a symbolic link/,
    });
  });

  it("is refused when a .gz unpacks to far more than its size", async (t) => {
    const bomb = gzipSync(await packTar({ "a/zeros": Buffer.alloc(24 * megabyte) }));
    await assert.rejects(openArchive(t, bomb), { code: "ARCHIVE_REFUSED", message: /decompression bomb/ });
  });

  it("is refused when a .gz is a bomb that is no tar at all", async (t) => {
    const bomb = gzipSync(Buffer.alloc(24 * megabyte));
    await assert.rejects(openArchive(t, bomb), { code: "ARCHIVE_REFUSED", message: /decompression bomb/ });
  });

  it("is refused when a .zip unpacks to far more than its size", async (t) => {
    const bomb = await packZip({ "a/zeros": Buffer.alloc(24 * megabyte) });
    await assert.rejects(openArchive(t, bomb), { code: "ARCHIVE_REFUSED", message: /decompression bomb/ });
  });

  it("is refused beyond a number of bytes or entries", async (t) => {
    const bytes = await packTarGz({ "a/1": Buffer.from("one"), "a/2": Buffer.from("two") });
    await assert.rejects(openArchive(t, bytes, { maxUnpackedBytes: 1024 }), {
      code: "ARCHIVE_REFUSED",
      message: /more than 1024 bytes/,
    });
    await assert.rejects(openArchive(t, bytes, { maxEntries: 1 }), {
      code: "ARCHIVE_REFUSED",
      message: /more than 1 entries/,
    });
  });

  it("is refused when a path is as long as no file system has it", async (t) => {
    const bytes = await packTarGz({ [`a/${"x".repeat(5_000)}`]: Buffer.from("one") });
    await assert.rejects(openArchive(t, bytes), { code: "ARCHIVE_REFUSED", message: /has 5002 characters/ });
  });
});

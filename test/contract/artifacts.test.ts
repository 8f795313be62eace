import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { readBytes, readJson } from "../../lib/artifacts/read.ts";
import { chunkSizeBytes } from "../../lib/artifacts/transfer.ts";
import { about, all, digestOf, failsWith, inPieces, stalling, until } from "./artifact-checks.ts";
import { drivers } from "./artifact-drivers.ts";

const unknownDigest = `sha256:${"0".repeat(64)}`;

// Spool files of this process go to a folder of its own, so that a test can tell that none is left.
process.env.TMPDIR = await mkdtemp(join(tmpdir(), "millrace-contract-"));
after(() => rm(tmpdir(), { recursive: true, force: true }));

for (const [name, { start, expectedPieces }] of Object.entries(drivers)) {
  describe(name, () => {
    test("gives back what it was given, in every size, from bytes and from a stream", async (t) => {
      const { store } = await start(t);
      for (const size of [0, 1, chunkSizeBytes - 1, chunkSizeBytes, chunkSizeBytes + 1, 20_000_000]) {
        const content = randomBytes(size);
        const odd = randomBytes(size);
        for (const [bytes, source] of [
          [content, content],
          [odd, inPieces(odd, 100_003)],
        ] as const) {
          const artifact = await store.put(source, about);
          assert.equal(artifact.digest, digestOf(bytes));
          assert.equal(artifact.sizeBytes, BigInt(size));
          assert.equal(artifact.mediaType, about.mediaType);
          assert.equal(artifact.name, about.name);
          assert.deepEqual(await store.stat(artifact.digest), { sizeBytes: size });
          assert.equal(Buffer.compare(await readBytes(store, artifact.digest, all), bytes), 0, `${size} bytes differ`);
        }
      }
    });

    test("stores the same bytes once, whether they come as bytes or as a stream", async (t) => {
      const { store, snapshot } = await start(t);
      const content = randomBytes(3 * chunkSizeBytes);
      const { digest } = await store.put(content, about);
      const before = await snapshot();
      assert.equal((await store.put(content, about)).digest, digest);
      assert.equal((await store.put(inPieces(content, 70_000), { ...about, name: "other.bin" })).digest, digest);
      assert.deepEqual(await snapshot(), before);
    });

    test("stores the same bytes once when eight writers put them at the same time", async (t) => {
      const { store, pieces } = await start(t);
      const content = randomBytes(3 * chunkSizeBytes);
      const writers = Array.from({ length: 8 }, () => store.put(inPieces(content, 70_000), about));
      for (const { digest } of await Promise.all(writers)) assert.equal(digest, digestOf(content));
      assert.equal(await pieces(), expectedPieces(3));
      assert.equal(Buffer.compare(await readBytes(store, digestOf(content), all), content), 0);
    });

    test("keeps nothing of a source that fails half-way, and passes its error on", async (t) => {
      const { store, snapshot } = await start(t);
      const before = await snapshot();
      const failure = new Error("the camera was unplugged");
      async function* failing() {
        yield randomBytes(2 * chunkSizeBytes);
        throw failure;
      }
      await assert.rejects(store.put(failing(), about), (error) => error === failure);
      assert.deepEqual(await snapshot(), before);
    });

    for (const damage of ["flipByte", "truncate", "removeChunk"] as const) {
      test(`names the digest of an artifact after ${damage}, before its last chunk, and heals by a new put`, async (t) => {
        const driver = await start(t);
        const { store } = driver;
        const content = randomBytes(3 * chunkSizeBytes);
        const { digest } = await store.put(content, about);
        await driver[damage](digest);
        let good = 0;
        await assert.rejects(
          async () => {
            for await (const chunk of store.get(digest)) good += chunk.byteLength;
          },
          failsWith("ARTIFACT_CORRUPT", digest),
        );
        assert.ok(good < content.byteLength - 1, `${good} bytes were handed over as good`);

        assert.equal((await store.put(content, about)).digest, digest);
        assert.equal(Buffer.compare(await readBytes(store, digest, all), content), 0);
      });
    }

    test("says that it does not hold a digest, and refuses one that is malformed", async (t) => {
      const { store } = await start(t);
      assert.equal(await store.stat(unknownDigest), undefined);
      await assert.rejects(readBytes(store, unknownDigest, all), failsWith("ARTIFACT_NOT_FOUND", unknownDigest));
      for (const malformed of [
        "",
        "sha256:abc",
        unknownDigest.toUpperCase(),
        "sha256:../../etc/passwd",
        `${unknownDigest}\n`,
      ]) {
        await assert.rejects(store.stat(malformed), failsWith("INVALID_REQUEST"));
        await assert.rejects(readBytes(store, malformed, all), failsWith("INVALID_REQUEST"));
      }
    });

    test("gives up on a source that stands still, and keeps nothing of it", async (t) => {
      const driver = await start(t);
      const before = await driver.snapshot();
      const impatient = await driver.reopen(100);
      await assert.rejects(impatient.put(stalling(randomBytes(1000)), about), failsWith("ARTIFACT_TIMEOUT"));
      assert.deepEqual(await driver.snapshot(), before);
    });

    test("does not count the time that a slow reader takes", async (t) => {
      const driver = await start(t);
      const content = randomBytes(3 * chunkSizeBytes);
      const { digest } = await driver.store.put(content, about);
      const impatient = await driver.reopen(300);
      let sizeBytes = 0;
      for await (const chunk of impatient.get(digest)) {
        sizeBytes += chunk.byteLength;
        await delay(400); // the subject of this test: a reader that is slower than the idle limit
      }
      assert.equal(sizeBytes, content.byteLength);
    });

    test("stops when the signal aborts, with the reason", async (t) => {
      const { store, snapshot } = await start(t);
      const { digest } = await store.put(randomBytes(5 * chunkSizeBytes), about);
      const before = await snapshot();

      const putting = new AbortController();
      const put = store.put(stalling(randomBytes(1000)), { ...about, signal: putting.signal });
      putting.abort();
      await assert.rejects(put, failsWith("CANCELLED"));
      const late = store.put(stalling(randomBytes(1000)), { ...about, signal: AbortSignal.timeout(50) });
      await assert.rejects(late, failsWith("DEADLINE_EXCEEDED"));
      assert.deepEqual(await snapshot(), before);

      const getting = new AbortController();
      await assert.rejects(async () => {
        for await (const _chunk of store.get(digest, { signal: getting.signal })) getting.abort();
      }, failsWith("CANCELLED"));
    });

    test("holds nothing open after a reader that stops early", async (t) => {
      const { store, openResources } = await start(t);
      const { digest } = await store.put(randomBytes(5 * chunkSizeBytes), about);
      await readBytes(store, digest, all);
      const before = await openResources();
      for (let round = 0; round < 10; round++) {
        for await (const _chunk of store.get(digest)) break;
      }
      await assert.rejects(
        readBytes(store, digest, { maxBytes: chunkSizeBytes }),
        failsWith("INVALID_REQUEST", digest),
      );
      await until(async () => (await openResources()) <= before, "everything is closed");
    });

    test("reads JSON, and says which artifact is none", async (t) => {
      const { store } = await start(t);
      const manifest = await store.put(Buffer.from('{"classes":10}'), about);
      assert.deepEqual(await readJson(store, manifest.digest, all), { classes: 10 });
      const noise = await store.put(Buffer.from([0xff, 0xfe]), about);
      await assert.rejects(readJson(store, noise.digest, all), failsWith("ARTIFACT_CORRUPT", noise.digest));
    });
  });
}

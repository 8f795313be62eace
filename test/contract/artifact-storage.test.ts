import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readdir, readFile, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { node, tracing } from "@opentelemetry/sdk-node";
import { openFolderStore } from "../../lib/artifacts/folder-store.ts";
import { openObjectStore } from "../../lib/artifacts/object-store.ts";
import { openArtifactStore } from "../../lib/artifacts/open-artifact-store.ts";
import { readBytes } from "../../lib/artifacts/read.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import { chunkSizeBytes } from "../../lib/artifacts/transfer.ts";
import { startNats } from "../helpers/nats-server.ts";
import { tempFolder } from "../helpers/temp-folder.ts";
import { about, all, failsWith, inPieces, until } from "./artifact-checks.ts";

test("the folder driver keeps no half artifact of a writer that is killed, and tidies up after it a day later", async (t) => {
  const folder = await tempFolder(t);
  const incoming = join(folder, "incoming");
  const writer = `
    import { openFolderStore } from ${JSON.stringify(import.meta.resolve("../../lib/artifacts/folder-store.ts"))};
    const store = await openFolderStore(${JSON.stringify(folder)});
    async function* endless() { while (true) yield Buffer.alloc(65536); }
    await store.put(endless(), ${JSON.stringify(about)});`;
  const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", writer], { stdio: "inherit" });
  t.after(() => child.kill("SIGKILL"));
  const half = async () => (await readdir(incoming).catch(() => []))[0];
  await until(async () => {
    const file = await half();
    return file !== undefined && (await stat(join(incoming, file))).size > 1_000_000;
  }, "the writer is in the middle of its work");
  child.kill("SIGKILL");
  await once(child, "exit");

  await openFolderStore(folder);
  const left = await readdir(folder, { recursive: true });
  assert.deepEqual(
    left.filter((path) => path.startsWith("sha256")),
    [],
    "nothing is to be seen under a digest",
  );
  const abandoned = join(incoming, (await half()) ?? assert.fail("the half file is not there"));
  const longAgo = new Date(Date.now() - 25 * 60 * 60 * 1000);
  await utimes(abandoned, longAgo, longAgo);
  await openFolderStore(folder);
  assert.deepEqual(await readdir(incoming), []);
});

test("the object store driver gives up on a server that stands still, and goes on when it moves again", async (t) => {
  const nats = await startNats(t);
  const store = await openNats(t, nats.url, 1000);
  const content = randomBytes(6 * chunkSizeBytes);
  const { digest } = await store.put(content, about);
  await assert.rejects(async () => {
    for await (const _chunk of store.get(digest)) process.kill(nats.pid, "SIGSTOP");
  }, failsWith("ARTIFACT_TIMEOUT"));
  await assert.rejects(store.put(randomBytes(1000), about), failsWith("ARTIFACT_TIMEOUT"));
  process.kill(nats.pid, "SIGCONT");
  assert.equal(Buffer.compare(await readBytes(store, digest, all), content), 0);
});

test("the object store driver keeps every artifact over the server's death", async (t) => {
  const nats = await startNats(t);
  const store = await openNats(t, nats.url, 5000);
  const content = randomBytes(6 * chunkSizeBytes);
  const { digest } = await store.put(inPieces(content, 50_000), about);
  await nats.kill();
  await nats.restart();
  const reopened = await openNats(t, nats.url, 5000);
  assert.equal(Buffer.compare(await readBytes(reopened, digest, all), content), 0);
});

test("a bucket that is there is given more copies where more are asked for, and keeps them where fewer are", async (t) => {
  const nats = await startNats(t);
  const nc = await connect({ servers: nats.url });
  t.after(() => nc.close());
  const jsm = await jetstreamManager(nc);
  const copiesAfter = async (replicas: number) => {
    await openObjectStore(nc, { bucket: "artifacts", replicas });
    return (await jsm.streams.info("OBJ_artifacts")).config.num_replicas;
  };
  // A server of its own notes the number, and keeps one.
  assert.deepEqual([await copiesAfter(1), await copiesAfter(3), await copiesAfter(1)], [1, 3, 3]);
});

test("a byte that is flipped in the server's own file is damage too", async (t) => {
  const nats = await startNats(t);
  const store = await openNats(t, nats.url, 5000);
  const { digest } = await store.put(randomBytes(6 * chunkSizeBytes), about);
  await nats.stop();
  const block = join(nats.storeFolder, "jetstream", "$G", "streams", "OBJ_artifacts", "msgs", "1.blk");
  const content = await readFile(block);
  const middle = Math.floor(content.byteLength / 2);
  await writeFile(block, content.with(middle, (content[middle] ?? 0) ^ 1));
  await nats.restart();
  const reopened = await openNats(t, nats.url, 5000);
  await assert.rejects(readBytes(reopened, digest, all), failsWith("ARTIFACT_CORRUPT", digest));
});

test("an address opens the driver that it names, and a wrong one is refused with what was expected", async (t) => {
  const folder = await tempFolder(t);
  const nats = await startNats(t);
  const nc = await connect({ servers: nats.url });
  t.after(() => nc.close());
  const odd = "100% of #1?";
  for (const url of [`file:${folder}/${odd}`, `file://${folder}/b%20c`, "nats://models-1"]) {
    await using store = await openArtifactStore(url, { nc });
    const { digest } = await store.put(Buffer.from("hello"), about);
    assert.equal(Buffer.from(await readBytes(store, digest, all)).toString(), "hello");
  }
  assert.deepEqual((await readdir(folder)).sort(), [odd, "b c"], "what is no URL is taken as it stands");
  for (const url of [
    "",
    "file:",
    "file://elsewhere/folder",
    "nats://",
    "nats://a.b",
    "nats://a/b",
    "s3://bucket",
    "/folder",
  ]) {
    await assert.rejects(openArtifactStore(url, { nc }), failsWith("CONFIGURATION_INVALID"), `"${url}" was taken`);
  }
  await assert.rejects(openArtifactStore("nats://bucket"), failsWith("CONFIGURATION_INVALID"));
});

test("each transfer is a span with the digest, the size and the driver, also one that fails or stops early", async (t) => {
  const exporter = new tracing.InMemorySpanExporter();
  const provider = new node.NodeTracerProvider({ spanProcessors: [new tracing.SimpleSpanProcessor(exporter)] });
  provider.register();
  t.after(() => provider.shutdown());
  const store = await openArtifactStore(`file:${await tempFolder(t)}`);
  const { digest } = await store.put(randomBytes(3 * chunkSizeBytes), about);
  for await (const _chunk of store.get(digest)) break;
  const unknown = `sha256:${"0".repeat(64)}`;
  await assert.rejects(readBytes(store, unknown, all), failsWith("ARTIFACT_NOT_FOUND"));

  const spans = exporter.getFinishedSpans().map(({ name, attributes }) => ({
    name,
    digest: attributes["millrace.artifact.digest"],
    sizeBytes: attributes["millrace.artifact.size_bytes"],
    store: attributes["millrace.artifact.store"],
    error: attributes["error.type"],
  }));
  assert.deepEqual(spans, [
    { name: "artifact put", digest, sizeBytes: 3 * chunkSizeBytes, store: "file", error: undefined },
    { name: "artifact get", digest, sizeBytes: chunkSizeBytes, store: "file", error: undefined },
    { name: "artifact get", digest: unknown, sizeBytes: 0, store: "file", error: "ARTIFACT_NOT_FOUND" },
  ]);
});

async function openNats(t: TestContext, url: string, idleTimeoutMs: number): Promise<ArtifactStore> {
  const nc = await connect({ servers: url });
  t.after(() => nc.close());
  return openObjectStore(nc, { bucket: "artifacts", idleTimeoutMs });
}

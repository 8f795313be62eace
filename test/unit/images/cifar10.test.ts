import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import { type DownloadOptions, download, type RemoteFile } from "../../../lib/images/files/download.ts";
import { loadSplit } from "../../../lib/images/load-split.ts";
import { tempFolder } from "../../helpers/temp-folder.ts";
import { type Files, packTarGz, prepare, writeFolder } from "./inputs.ts";

const signal = new AbortController().signal;

/** A batch of records whose labels go round and whose pixels are the record's number in red, its label in green and 7 in blue. */
function batch(records: number, firstLabel = 0): Buffer {
  const plane = (value: number): Buffer => Buffer.alloc(1024, value);
  const record = (number: number): Buffer => {
    const label = (firstLabel + number) % 10;
    return Buffer.concat([Buffer.from([label]), plane(number), plane(label), plane(7)]);
  };
  return Buffer.concat(Array.from({ length: records }, (_, number) => record(number)));
}

const batches: Files = {
  "cifar-10-batches-bin/batches.meta.txt": Buffer.from("airplane\n"),
  "cifar-10-batches-bin/data_batch_1.bin": batch(20),
  "cifar-10-batches-bin/data_batch_2.bin": batch(20, 5),
  "cifar-10-batches-bin/test_batch.bin": batch(10),
};

/** A server on loopback that stops with the test. */
async function startServer(t: TestContext, listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/cifar-10-binary.tar.gz`;
}

function remoteFile(url: string, content: Buffer): RemoteFile {
  const md5 = createHash("md5").update(content).digest("hex");
  return { url, fileName: "cifar-10-binary.tar.gz", sizeBytes: content.length, md5 };
}

describe("CIFAR-10", () => {
  it("is read from the unpacked folder, its pixels as they are and in their order", async (t) => {
    const source = await writeFolder(await tempFolder(t), batches);
    const { dataset, manifest, artifacts } = await prepare(t, { source: join(source, "cifar-10-batches-bin") });
    assert.deepEqual([manifest.name, dataset.trainImages, dataset.testImages], ["cifar10", 40, 10]);
    assert.equal(dataset.classes[9], "truck");
    const { pixels, labels } = await loadSplit(manifest, "train", { artifacts, signal });
    assert.deepEqual([...labels.subarray(18, 22)], [8, 9, 5, 6]);
    assert.deepEqual([pixels[19 * 3072], pixels[19 * 3072 + 1024], pixels[19 * 3072 + 2048]], [19, 9, 7]);
    assert.ok(Math.abs((manifest.channelMeans[2] ?? 0) - 7 / 255) < 1e-12);
  });

  it("has the same digest from an archive, and a limit takes each class's first", async (t) => {
    const folder = await writeFolder(await tempFolder(t), { ...batches, "data.tar.gz": await packTarGz(batches) });
    const unpacked = await prepare(t, { source: folder });
    const packed = await prepare(t, { source: join(folder, "data.tar.gz") });
    assert.equal(packed.dataset.digest, unpacked.dataset.digest);
    const limited = await prepare(t, { source: folder, limitPerClass: 1 });
    assert.deepEqual(limited.manifest.train?.classCounts, new Array(10).fill(1));
  });

  it("is refused with a label that is no class's, a batch cut short, a missing batch, or another image size", async (t) => {
    const wrong: readonly [Files, RegExp][] = [
      [{ ...batches, "cifar-10-batches-bin/data_batch_2.bin": Buffer.alloc(3073, 10) }, /label 10; labels end at 9/],
      [
        { ...batches, "cifar-10-batches-bin/data_batch_2.bin": Buffer.alloc(3000) },
        /no whole number of 3073-byte records/,
      ],
      [{ "data_batch_1.bin": batch(20) }, /some are missing/],
    ];
    for (const [files, message] of wrong) {
      const source = await writeFolder(await tempFolder(t), files);
      await assert.rejects(prepare(t, { source }), { code: "DATASET_INVALID", message });
    }
    const source = await writeFolder(await tempFolder(t), batches);
    await assert.rejects(prepare(t, { source, imageSize: 64 }), {
      code: "DATASET_INVALID",
      message: /leave the image size/,
    });
  });

  it("is downloaded with progress, and a second time taken from the cache", async (t) => {
    const archive = await packTarGz(batches);
    let requests = 0;
    const url = await startServer(t, (_, response) => {
      requests++;
      response.end(archive);
    });
    const cacheFolder = await tempFolder(t);
    const phases: string[] = [];
    const dependencies = {
      cifar10: remoteFile(url, archive),
      cacheFolder,
      onProgress: ({ phase }: { phase: string }) => phases.push(phase),
    };
    const first = await prepare(t, { source: "cifar10" }, dependencies);
    const second = await prepare(t, { source: "cifar10" }, dependencies);
    assert.equal(requests, 1);
    assert.equal(second.dataset.digest, first.dataset.digest);
    assert.deepEqual([...new Set(phases)], ["downloading", "decoding"]);
    assert.deepEqual(await readdir(cacheFolder), ["cifar-10-binary.tar.gz"]);
  });
});

describe("a download", () => {
  const content = Buffer.from("the whole content of the file");
  const patient = { signal, onProgress: () => undefined, retryPausesMs: [] };

  async function fetchFrom(
    t: TestContext,
    listener: RequestListener,
    options: Partial<DownloadOptions> = {},
  ): Promise<string[]> {
    const cacheFolder = join(await tempFolder(t), "cache");
    const url = await startServer(t, listener);
    try {
      await download(remoteFile(url, content), { ...patient, cacheFolder, ...options });
    } catch (error) {
      assert.deepEqual(await readdir(cacheFolder), [], "nothing half-done is left behind");
      throw error;
    }
    return readdir(cacheFolder);
  }

  it("is refused when the content is another", async (t) => {
    const other = Buffer.from("THE WHOLE CONTENT OF THE FILE");
    await assert.rejects(
      fetchFrom(t, (_, response) => response.end(other)),
      { code: "DOWNLOAD_FAILED", message: /its md5 is/ },
    );
  });

  it("is refused when the body ends too soon", async (t) => {
    const half = content.subarray(0, 10);
    const ended = { code: "DOWNLOAD_FAILED", message: /ended after 10 of 29 bytes/ };
    await assert.rejects(
      fetchFrom(t, (_, response) => response.end(half)),
      ended,
    );
  });

  it("is refused when the connection breaks in the middle", async (t) => {
    const breaking: RequestListener = (_, response) => {
      response.writeHead(200, { "content-length": content.length });
      response.write(content.subarray(0, 10), () => response.destroy());
    };
    await assert.rejects(fetchFrom(t, breaking), { code: "DOWNLOAD_FAILED", retryable: true });
  });

  it("is refused when the body is longer than it should be", async (t) => {
    const long = Buffer.concat([content, content]);
    await assert.rejects(
      fetchFrom(t, (_, response) => response.end(long)),
      { code: "DOWNLOAD_FAILED", message: /longer than/ },
    );
  });

  it("is given up when the server falls silent", async (t) => {
    const silent: RequestListener = (_, response) => void response.write(content.subarray(0, 10));
    await assert.rejects(fetchFrom(t, silent, { idleTimeoutMs: 100 }), {
      code: "DOWNLOAD_FAILED",
      message: /sent nothing for 0.1 s/,
    });
  });

  it("is given up at once when there is no such file, and names what to do", async (t) => {
    let requests = 0;
    const missing: RequestListener = (_, response) => {
      requests++;
      response.writeHead(404).end();
    };
    await assert.rejects(fetchFrom(t, missing, { retryPausesMs: [1, 1] }), {
      code: "DOWNLOAD_FAILED",
      message: /answered 404 Not Found; if this host cannot reach the server, download it elsewhere/,
    });
    assert.equal(requests, 1);
  });

  it("is tried again when the server is busy", async (t) => {
    let requests = 0;
    const busy: RequestListener = (_, response) => {
      requests++;
      if (requests < 3) response.writeHead(503).end();
      else response.end(content);
    };
    assert.deepEqual(await fetchFrom(t, busy, { retryPausesMs: [1, 1] }), ["cifar-10-binary.tar.gz"]);
    assert.equal(requests, 3);
  });

  it("ends when it is cancelled", async (t) => {
    const controller = new AbortController();
    const cancelled = fetchFrom(t, () => controller.abort(), { signal: controller.signal });
    await assert.rejects(cancelled, { name: "AbortError" });
  });

  it("is refused before it begins when the cache folder cannot be written", async (t) => {
    const cacheFolder = join(await tempFolder(t), "cache");
    await writeFile(cacheFolder, "a file in its place");
    const file = remoteFile("http://127.0.0.1:1/", content);
    await assert.rejects(download(file, { ...patient, cacheFolder }), { code: "CONFIGURATION_INVALID" });
  });

  it("replaces a cached file that is damaged", async (t) => {
    const cacheFolder = join(await tempFolder(t), "cache");
    await mkdir(cacheFolder);
    await writeFile(join(cacheFolder, "cifar-10-binary.tar.gz"), Buffer.alloc(content.length));
    let requests = 0;
    const url = await startServer(t, (_, response) => {
      requests++;
      response.end(content);
    });
    await download(remoteFile(url, content), { ...patient, cacheFolder });
    assert.equal(requests, 1);
  });
});

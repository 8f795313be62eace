import assert from "node:assert/strict";
import { chmod, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import { loadSplit } from "../../../lib/images/load-split.ts";
import { tempFolder } from "../../helpers/temp-folder.ts";
import {
  classFolders,
  type Files,
  type Prepared,
  packTar,
  packTarGz,
  packZip,
  plainImage,
  prepare,
  writeFolder,
} from "./inputs.ts";

const signal = new AbortController().signal;

/** Writes bytes to a file in a folder of the test's own. */
async function writeTemporary(t: TestContext, name: string, bytes: Buffer): Promise<string> {
  const path = join(await tempFolder(t), name);
  await writeFile(path, bytes);
  return path;
}

async function prepareFolder(
  t: TestContext,
  files: Files,
  spec: Parameters<typeof prepare>[1] = {},
): Promise<Prepared> {
  return prepare(t, { imageSize: 4, ...spec, source: await writeFolder(await tempFolder(t), files) });
}

/** The shade of each image of a split, as hexadecimal text in order. */
async function shades({ manifest, artifacts }: Prepared, split: "train" | "test"): Promise<string[]> {
  const { pixels, count } = await loadSplit(manifest, split, { artifacts, signal });
  const imageBytes = pixels.length / count;
  return Array.from({ length: count }, (_, image) => (pixels[image * imageBytes] ?? 0).toString(16));
}

describe("an image folder", () => {
  it("becomes classes sorted by name, with labels, counts and statistics", async (t) => {
    const prepared = await prepareFolder(t, await classFolders(["zebra", "ant", "mouse"]));
    const { dataset, manifest, artifacts } = prepared;
    assert.deepEqual(dataset.classes, ["ant", "mouse", "zebra"]);
    assert.deepEqual([dataset.trainImages, dataset.testImages, dataset.skippedImages], [12, 6, 0]);
    assert.deepEqual(manifest.train?.classCounts, [4, 4, 4]);
    assert.deepEqual([manifest.shape?.height, manifest.shape?.width, manifest.shape?.channels], [4, 4, 3]);
    assert.ok(Math.abs((manifest.channelMeans[1] ?? 0) - 0x80 / 255) < 1e-12);
    assert.equal(manifest.channelDeviations[1], 0);
    const { pixels, labels, count } = await loadSplit(manifest, "train", { artifacts, signal });
    // The class's shade is 60 times its place among the names as they were given: zebra 0, ant 1, mouse 2.
    const places = [60, 120, 0];
    for (let image = 0; image < count; image++) {
      const shade = pixels[image * 48] ?? 0;
      const place = places[labels[image] ?? -1] ?? Number.NaN;
      assert.ok(shade >= place && shade < place + 60, `image ${image} of class ${labels[image]} has shade ${shade}`);
    }
  });

  it("has one digest as a folder, .tar, .tar.gz or .zip, wrapped or not, in whatever order", async (t) => {
    const files = await classFolders(["cat", "dog"]);
    const shuffled = Object.fromEntries(Object.entries(files).reverse());
    const wrapped = Object.fromEntries(Object.entries(files).map(([path, bytes]) => [`pets/${path}`, bytes]));
    const sources = [
      await writeFolder(await tempFolder(t), files),
      await writeFolder(await tempFolder(t), wrapped),
      await writeTemporary(t, "one.tar", await packTar(shuffled)),
      await writeTemporary(t, "two.tar.gz", await packTarGz(wrapped)),
      await writeTemporary(t, "three.zip", await packZip(shuffled)),
      await writeTemporary(t, "no-ending", await packTarGz(files)),
    ];
    const digests = new Set<string>();
    for (const source of sources) digests.add((await prepare(t, { source, imageSize: 4 })).dataset.digest);
    assert.equal(digests.size, 1);
    const { dataset } = await prepare(t, { source: sources[3] ?? "", imageSize: 4 });
    assert.equal(dataset.name, "two");
  });

  it("takes the last of two files that an archive holds under one path, as unpacking would", async (t) => {
    const files = await classFolders(["cat", "dog"]);
    const first = await packTar({ "train/cat/0.png": await plainImage("#ffffff") });
    // A tar ends with two empty blocks; without them another follows on.
    const twice = Buffer.concat([first.subarray(0, -1024), await packTar(files)]);
    const source = await writeTemporary(t, "twice.tar", twice);
    const { dataset } = await prepare(t, { source, imageSize: 4 });
    assert.equal(dataset.digest, (await prepareFolder(t, files)).dataset.digest);
  });

  it("takes another order, and so another digest, with another seed", async (t) => {
    const files = await classFolders(["cat", "dog"]);
    const one = await prepareFolder(t, files, { seed: 1n });
    const other = await prepareFolder(t, files, { seed: 2n });
    assert.notEqual(one.dataset.digest, other.dataset.digest);
    assert.deepEqual((await shades(one, "train")).sort(), (await shades(other, "train")).sort());
  });

  it("takes a part of the images with a limit, and a part of that with a lower one", async (t) => {
    const files = await classFolders(["cat", "dog"], { train: 6, test: 3 });
    const three = await prepareFolder(t, files, { limitPerClass: 3 });
    const two = await prepareFolder(t, files, { limitPerClass: 2 });
    assert.deepEqual(three.manifest.train?.classCounts, [3, 3]);
    assert.deepEqual(two.manifest.test?.classCounts, [2, 2]);
    const more = await shades(three, "train");
    assert.ok((await shades(two, "train")).every((shade) => more.includes(shade)));
  });

  it("may have a class that is called train", async (t) => {
    const divided = Object.entries(await classFolders(["bus", "car", "train"], { train: 4, test: 0 }));
    const files = Object.fromEntries(divided.map(([path, bytes]) => [path.replace("train/", ""), bytes]));
    const { manifest } = await prepareFolder(t, files);
    assert.deepEqual(manifest.classes, ["bus", "car", "train"]);
  });

  it("is split class by class where it has no train/ and test/", async (t) => {
    const divided = Object.entries(await classFolders(["cat", "dog"], { train: 10, test: 0 }));
    const files = Object.fromEntries(divided.map(([path, bytes]) => [path.replace("train/", ""), bytes]));
    const first = await prepareFolder(t, files, { testShare: 0.3, seed: 7n });
    assert.deepEqual(first.manifest.train?.classCounts, [7, 7]);
    assert.deepEqual(first.manifest.test?.classCounts, [3, 3]);
    const all = [...(await shades(first, "train")), ...(await shades(first, "test"))];
    assert.equal(new Set(all).size, 20, "no image is in both splits");
    const again = await prepareFolder(t, files, { testShare: 0.3, seed: 7n });
    assert.equal(again.dataset.digest, first.dataset.digest);
  });

  it("does not mind hidden files, what macOS adds, and text beside the classes", async (t) => {
    const files = await classFolders(["cat", "dog"]);
    const junk = Buffer.from("junk");
    const extra = {
      ".DS_Store": junk,
      "train/cat/.hidden.png": junk,
      "__MACOSX/train/cat/._0.png": junk,
      "README.md": junk,
    };
    const { dataset } = await prepareFolder(t, { ...files, ...extra });
    assert.equal(dataset.digest, (await prepareFolder(t, files)).dataset.digest);
    const zip = await writeTemporary(t, "mac.zip", await packZip({ ...files, ...extra }));
    assert.equal((await prepare(t, { source: zip, imageSize: 4 })).dataset.digest, dataset.digest);
  });

  it("takes images of folders within a class's folder", async (t) => {
    const files = await classFolders(["cat", "dog"]);
    const { manifest } = await prepareFolder(t, { ...files, "train/cat/more/9.png": await plainImage("#123456") });
    assert.deepEqual(manifest.train?.classCounts, [5, 4]);
  });
});

describe("an image folder with files that cannot be used", () => {
  it("is prepared without them, counting and naming them, up to the share allowed", async (t) => {
    const files = await classFolders(["cat", "dog"]);
    const bad = { "train/cat/bad.jpg": Buffer.from("no image"), "train/stray.png": await plainImage("#fff") };
    const { dataset, manifest } = await prepareFolder(t, { ...files, ...bad }, { maxSkippedShare: 0.2 });
    assert.equal(dataset.skippedImages, 2);
    assert.equal(manifest.skippedImages, 2);
    const reasons = new Map(dataset.skipped.map(({ path, reason }) => [path, reason]));
    assert.match(reasons.get("train/cat/bad.jpg") ?? "", /no image in a format that can be read/);
    assert.match(reasons.get("train/stray.png") ?? "", /no class folder of train\/ or test\//);
  });

  it("fails beyond that share, naming the first of them", async (t) => {
    const files = { ...(await classFolders(["cat", "dog"])), "train/cat/bad.jpg": Buffer.from("no image") };
    await assert.rejects(prepareFolder(t, files), {
      code: "DATASET_INVALID",
      message: /1 of 13 images could not be read, .* 0.01 may be skipped.* train\/cat\/bad.jpg \(the file is no image/,
    });
  });

  it("names twenty of many", async (t) => {
    const bad = Array.from({ length: 25 }, (_, number) => [`train/cat/bad-${number}.png`, Buffer.alloc(0)] as const);
    const files = { ...(await classFolders(["cat", "dog"])), ...Object.fromEntries(bad) };
    const { dataset } = await prepareFolder(t, files, { maxSkippedShare: 0.9 });
    assert.deepEqual([dataset.skippedImages, dataset.skipped.length], [25, 20]);
  });

  it("fails when a class has no readable image left", async (t) => {
    const files = {
      ...(await classFolders(["cat", "dog"])),
      "train/ant/1.png": Buffer.alloc(0),
      "test/ant/1.png": await plainImage("#fff"),
    };
    await assert.rejects(prepareFolder(t, files, { maxSkippedShare: 0.5 }), {
      code: "DATASET_INVALID",
      message: /class "ant" has no readable train image; left out were train\/ant\/1.png \(the file is empty/,
    });
  });

  it("does not follow symbolic links, and says so", async (t) => {
    const root = await writeFolder(await tempFolder(t), await classFolders(["cat", "dog"]));
    await symlink(join(root, "train/dog/0.png"), join(root, "train/cat/link.png"));
    const { dataset } = await prepare(t, { source: root, imageSize: 4, maxSkippedShare: 0.5 });
    assert.deepEqual(
      dataset.skipped.map(({ path }) => path),
      ["train/cat/link.png"],
    );
  });
});

describe("a folder that is no data set", () => {
  const image = () => plainImage("#888");

  it("is refused with no image", async (t) => {
    await assert.rejects(prepareFolder(t, { "notes/readme.txt": Buffer.from("x") }), { code: "DATASET_INVALID" });
    await assert.rejects(prepareFolder(t, {}), {
      code: "DATASET_INVALID",
      message: /holds no images in class folders/,
    });
  });

  it("is refused with one class", async (t) => {
    const files = { "train/cat/1.png": await image(), "test/cat/1.png": await image() };
    await assert.rejects(prepareFolder(t, files), {
      code: "DATASET_INVALID",
      message: /only one class, "cat"; it takes two/,
    });
  });

  it("is refused with images that lie in no class folder", async (t) => {
    const files = { "1.png": await image(), "2.png": await image() };
    await assert.rejects(prepareFolder(t, files), { code: "DATASET_INVALID", message: /1.png is left out because/ });
  });

  for (const missing of ["train", "test"] as const) {
    it(`is refused with a class that has no ${missing} image`, async (t) => {
      const other = missing === "train" ? "test" : "train";
      const files = { ...(await classFolders(["cat", "dog"])), [`${other}/ant/1.png`]: await image() };
      await assert.rejects(prepareFolder(t, files), {
        code: "DATASET_INVALID",
        message: new RegExp(`class "ant" has no image for the ${missing} split; add images to ${missing}/ant/`),
      });
    });
  }

  it("is refused when an undivided class has a single image", async (t) => {
    const files = { "cat/1.png": await image(), "cat/2.png": await image(), "dog/1.png": await image() };
    await assert.rejects(prepareFolder(t, files), {
      code: "DATASET_INVALID",
      message: /class "dog" .* two images at least/,
    });
  });

  it("is refused when it does not exist, saying what was looked for and what sources there are", async (t) => {
    const source = join(await tempFolder(t), "nowhere");
    await assert.rejects(prepare(t, { source }), {
      code: "DATASET_INVALID",
      message:
        /there is no data set ".*nowhere" \(looked for .*nowhere\); a source is "pictograms", "cifar10", or the path/,
    });
  });

  it("is refused when it is a file of another kind", async (t) => {
    const source = await writeTemporary(t, "letter.txt", Buffer.from("Dear reader"));
    await assert.rejects(prepare(t, { source }), { code: "DATASET_INVALID", message: /neither a folder nor a .tar/ });
  });

  const skip = process.getuid?.() === 0 ? "the superuser may read everything" : false;
  it("is refused when it may not be read", { skip }, async (t) => {
    const source = await writeFolder(await tempFolder(t), await classFolders(["cat", "dog"]));
    await chmod(source, 0o000);
    t.after(() => chmod(source, 0o700));
    await assert.rejects(prepare(t, { source }), { code: "DATASET_INVALID", message: /permission denied/ });
  });

  it("stops with CANCELLED when asked to", async (t) => {
    const source = await writeFolder(await tempFolder(t), await classFolders(["cat", "dog"]));
    const controller = new AbortController();
    const stop = { signal: controller.signal, onProgress: () => controller.abort() };
    await assert.rejects(prepare(t, { source }, stop), { code: "CANCELLED" });
  });
});

/** What the tests of data sets need: temporary folders, a store, and images, folders and archives made on the spot. */
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { buffer } from "node:stream/consumers";
import type { TestContext } from "node:test";
import { gzipSync } from "node:zlib";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import sharp from "sharp";
import { pack } from "tar-stream";
import { ZipFile } from "yazl";
import { type Dataset, type DatasetManifest, DatasetSpecSchema } from "../../../gen/millrace/v1/dataset_pb.ts";
import { openFolderStore } from "../../../lib/artifacts/folder-store.ts";
import type { ArtifactStore } from "../../../lib/artifacts/store.ts";
import { readManifest } from "../../../lib/images/manifest.ts";
import { type PrepareDependencies, prepareDataset } from "../../../lib/images/prepare-dataset.ts";
import { tempFolder } from "../../helpers/temp-folder.ts";

/** Files by path. */
export type Files = Readonly<Record<string, Buffer>>;

export async function startStore(t: TestContext): Promise<ArtifactStore> {
  const store = await openFolderStore(join(await tempFolder(t), "artifacts"));
  t.after(() => store[Symbol.asyncDispose]());
  return store;
}

/** A data set that a test has prepared. */
export interface Prepared {
  readonly dataset: Dataset;
  readonly manifest: DatasetManifest;
  readonly artifacts: ArtifactStore;
}

/** Prepares a data set with a store and a cache folder of its own. */
export async function prepare(
  t: TestContext,
  spec: MessageInitShape<typeof DatasetSpecSchema>,
  dependencies: Partial<PrepareDependencies> = {},
): Promise<Prepared> {
  const artifacts = await startStore(t);
  const dataset = await prepareDataset(create(DatasetSpecSchema, spec), {
    artifacts,
    cacheFolder: join(await tempFolder(t), "cache"),
    onProgress: () => undefined,
    signal: new AbortController().signal,
    ...dependencies,
  });
  return { dataset, manifest: await readManifest(dataset.digest, { artifacts }), artifacts };
}

/** A square image of one colour, as sharp would write it to a file of that format. */
export function plainImage(colour: string, format: "png" | "jpeg" | "webp" | "gif" = "png", size = 8): Promise<Buffer> {
  return sharp({ create: { width: size, height: size, channels: 3, background: colour } })
    .toFormat(format)
    .toBuffer();
}

/** A class-per-folder tree with train/ and test/: images a class and split, each of another shade. */
export async function classFolders(classes: readonly string[], { train = 4, test = 2 } = {}): Promise<Files> {
  const files: Record<string, Buffer> = {};
  for (const [label, name] of classes.entries()) {
    for (const [split, count] of Object.entries({ train, test })) {
      for (let number = 0; number < count; number++) {
        const shade = (label * 60 + number * 9 + (split === "test" ? 4 : 0)).toString(16).padStart(2, "0");
        files[`${split}/${name}/${number}.png`] = await plainImage(`#${shade}80${shade}`);
      }
    }
  }
  return files;
}

export async function writeFolder(root: string, files: Files): Promise<string> {
  for (const [path, bytes] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), bytes);
  }
  return root;
}

export async function packTar(files: Files): Promise<Buffer> {
  const archive = pack();
  for (const [name, bytes] of Object.entries(files)) archive.entry({ name }, bytes);
  archive.finalize();
  return buffer(archive as unknown as AsyncIterable<Uint8Array>);
}

export async function packTarGz(files: Files): Promise<Buffer> {
  return gzipSync(await packTar(files));
}

export async function packZip(files: Files): Promise<Buffer> {
  const archive = new ZipFile();
  for (const [name, bytes] of Object.entries(files)) archive.addBuffer(bytes, name);
  archive.end();
  return buffer(archive.outputStream as unknown as AsyncIterable<Uint8Array>);
}

/** CIFAR-10 for the benchmarks of training, prepared by the same code as in a run and kept for the next one. */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { type DatasetManifest, DatasetSpecSchema } from "../../gen/millrace/v1/dataset_pb.ts";
import { openFolderStore } from "../../lib/artifacts/folder-store.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import { AppError } from "../../lib/errors.ts";
import { type LoadedSplit, loadSplit } from "../../lib/images/load-split.ts";
import { readManifest } from "../../lib/images/manifest.ts";
import { prepareDataset } from "../../lib/images/prepare-dataset.ts";
import type { TrainingData } from "../../lib/nn/training-data.ts";

export interface Cifar10 {
  /** 50,000 images. */
  readonly train: TrainingData;
  /** 5,000 images that `train` does not contain. */
  readonly test: LoadedSplit;
}

/**
 * Reads `cifar10-images.tar.gz` from the folder that MILLRACE_SHARED_DATA names, else from ../shared/data. What it is prepared to
 * stays in `cacheFolder`. Throws DATASET_INVALID where there is no archive.
 */
export async function loadCifar10(cacheFolder: string): Promise<Cifar10> {
  const folder = process.env.MILLRACE_SHARED_DATA ?? "../shared/data";
  const archive = join(folder, "cifar10-images.tar.gz");
  if (!existsSync(archive)) {
    const advice = "set MILLRACE_SHARED_DATA to the folder that holds it";
    throw new AppError("DATASET_INVALID", `there is no archive ${archive}; ${advice}`);
  }
  await using artifacts = await openFolderStore(join(cacheFolder, "artifacts"));
  const manifest = await prepareOnce(archive, { artifacts, cacheFolder });
  const options = { artifacts, signal: new AbortController().signal };
  const train = await loadSplit(manifest, "train", options);
  return { train: trainingData(manifest, train), test: await loadSplit(manifest, "test", options) };
}

interface Cache {
  readonly artifacts: ArtifactStore;
  readonly cacheFolder: string;
}

/** A file beside the store, named after the archive's content, says under which digest the store has the data set. */
async function prepareOnce(archive: string, { artifacts, cacheFolder }: Cache): Promise<DatasetManifest> {
  await mkdir(cacheFolder, { recursive: true });
  const content = createHash("sha256")
    .update(await readFile(archive))
    .digest("hex");
  const note = join(cacheFolder, `${content}.digest`);
  if (!existsSync(note)) {
    console.error(`preparing ${archive} into ${cacheFolder}, which takes about a minute`);
    const { digest } = await prepareDataset(create(DatasetSpecSchema, { source: archive }), {
      artifacts,
      cacheFolder,
      onProgress: () => undefined,
      signal: new AbortController().signal,
    });
    await writeFile(note, digest);
  }
  return readManifest(await readFile(note, "utf8"), { artifacts });
}

function trainingData(manifest: DatasetManifest, { pixels, labels }: LoadedSplit): TrainingData {
  const { height = 0, width = 0, channels = 0 } = manifest.shape ?? {};
  const { classes, channelMeans: mean, channelDeviations: standardDeviation } = manifest;
  return { classes, height, width, channels, mean, standardDeviation, pixels, labels };
}

import { create, toJsonString } from "@bufbuild/protobuf";
import {
  type Dataset,
  type DatasetManifest,
  DatasetManifestSchema,
  type DatasetProgress,
  DatasetProgressSchema,
  DatasetSchema,
  type DatasetSpec,
  type DatasetSplit,
  SkippedImageSchema,
} from "../../gen/millrace/v1/dataset_pb.ts";
import type { ArtifactStore } from "../artifacts/store.ts";
import { AppError } from "../errors.ts";
import { recordMetric } from "../telemetry/metrics.ts";
import { withSpan } from "../telemetry/spans.ts";
import { type ChannelAccumulator, createChannelAccumulator } from "./channel-statistics.ts";
import type { RemoteFile } from "./files/download.ts";
import { createShardWriter } from "./shard-writer.ts";
import { openSource } from "./sources/open-source.ts";
import type { ImageSource, LeftOut, PixelShape, SourceOptions } from "./sources/source.ts";

/** Raised whenever the same source would give other pixels, another order or another split than before. */
const preprocessingVersion = 1;

const defaults = { imageSize: 32, maxSkippedShare: 0.01, testShare: 0.2 };

/** Left-out images that are named with their reasons; the others are only counted. */
const namedLeftOut = 20;

/** Shortest time between two reports of progress, in milliseconds. */
const progressIntervalMs = 100;

export interface PrepareDependencies {
  readonly artifacts: ArtifactStore;
  /** Where downloads are kept and archives are unpacked; made if it is not there. */
  readonly cacheFolder: string;
  /** Called at most ten times a second, and at the end. */
  onProgress(progress: DatasetProgress): void;
  /** Ends the preparation early, with CANCELLED. */
  readonly signal: AbortSignal;
  /** What "cifar10" downloads. Default: the official archive. */
  readonly cifar10?: RemoteFile;
}

/**
 * Prepares a data set: reads a source's images, stores them as shards of unsigned bytes, and describes them in a manifest,
 * whose digest is the data set's.
 *
 * The manifest says nothing of when, where or how fast: the same content and specification give the same digest. The names
 * of a folder or archive itself do not count either. What is in memory at a time is one shard of each split and the images being decoded.
 *
 * @throws AppError DATASET_INVALID when the source cannot be used or more of its images are unreadable than the
 * specification allows, ARCHIVE_REFUSED, DOWNLOAD_FAILED, CANCELLED, or what the artifact store throws.
 */
export async function prepareDataset(spec: DatasetSpec, dependencies: PrepareDependencies): Promise<Dataset> {
  const options = optionsFrom(spec, dependencies);
  const { artifacts, signal, cifar10 } = dependencies;
  const report = createReporter(dependencies);
  try {
    signal.throwIfAborted();
    await using source = await withSpan("open source", {}, () =>
      openSource(spec.source, {
        ...options,
        ...(cifar10 === undefined ? {} : { cifar10 }),
        onDownload: (done, total) => report({ phase: "downloading", done, total, skipped: 0 }),
      }),
    );
    const stored = await storeImages(source, {
      ...options,
      artifacts,
      report,
      maxSkippedShare: spec.maxSkippedShare ?? defaults.maxSkippedShare,
    });
    const manifest = describe(source, spec, options.shape, stored);
    return await storeManifest(manifest, { name: source.title, leftOut: stored.leftOut, artifacts, signal });
  } catch (error) {
    if (signal.aborted) throw AppError.from(signal.reason);
    throw AppError.from(error);
  }
}

function optionsFrom(spec: DatasetSpec, { cacheFolder, signal }: PrepareDependencies): SourceOptions {
  const size = spec.imageSize || defaults.imageSize;
  return {
    shape: { height: size, width: size, channels: 3 },
    limitPerClass: spec.limitPerClass || Number.POSITIVE_INFINITY,
    seed: spec.seed,
    testShare: spec.testShare ?? defaults.testShare,
    cacheFolder,
    signal,
  };
}

interface Progress {
  readonly phase: string;
  readonly done: number;
  readonly total: number;
  readonly skipped: number;
}

/** Hands progress on, seldom enough to cost nothing; the last of a phase always. */
function createReporter({ onProgress }: PrepareDependencies): (progress: Progress) => void {
  let nextMs = 0;
  return ({ phase, done, total, skipped }) => {
    if (done < total && performance.now() < nextMs) return;
    nextMs = performance.now() + progressIntervalMs;
    const counts = { done: BigInt(done), total: BigInt(total), skippedImages: skipped };
    onProgress(create(DatasetProgressSchema, { phase, ...counts }));
  };
}

interface StoreOptions extends SourceOptions {
  readonly artifacts: ArtifactStore;
  readonly report: (progress: Progress) => void;
  readonly maxSkippedShare: number;
}

interface StoredImages {
  readonly train: DatasetSplit;
  readonly test: DatasetSplit;
  readonly statistics: ReturnType<ChannelAccumulator["result"]>;
  readonly leftOut: readonly LeftOut[];
}

async function storeImages(source: ImageSource, options: StoreOptions): Promise<StoredImages> {
  const { shape, artifacts, signal, report, maxSkippedShare } = options;
  const shards = { imageBytes: shape.channels * shape.height * shape.width, classes: source.classes.length };
  const writers = {
    train: createShardWriter({ ...shards, artifacts, signal, name: "train" }),
    test: createShardWriter({ ...shards, artifacts, signal, name: "test" }),
  };
  const statistics = createChannelAccumulator(shape.channels);
  const leftOut: LeftOut[] = [];
  let done = 0;
  for await (const item of source.items(signal)) {
    signal.throwIfAborted();
    if (item.kind === "image") {
      await writers[item.split].add(item.label, item.pixels);
      if (item.split === "train") statistics.add(item.pixels);
    } else {
      leftOut.push({ path: item.path, reason: item.reason });
      if (leftOut.length > maxSkippedShare * source.total) throw tooManyLeftOut(leftOut, source.total, maxSkippedShare);
    }
    const outcome = item.kind === "image" ? "decoded" : "skipped";
    recordMetric("millrace.dataset.images", 1, { "millrace.images.outcome": outcome });
    done++;
    report({ phase: source.phase, done, total: source.total, skipped: leftOut.length });
  }
  const stored = { train: await writers.train.finish(), test: await writers.test.finish() };
  requireEveryClass(source.classes, stored, leftOut);
  return { ...stored, statistics: statistics.result(), leftOut };
}

function tooManyLeftOut(leftOut: readonly LeftOut[], total: number, maxShare: number): AppError {
  const allowed = `${leftOut.length} of ${total} images could not be read, and a share of ${maxShare} may be skipped`;
  return new AppError("DATASET_INVALID", `${allowed}; mend or remove the files: ${list(leftOut)}`);
}

function requireEveryClass(
  classes: readonly string[],
  splits: Pick<StoredImages, "train" | "test">,
  leftOut: readonly LeftOut[],
): void {
  for (const name of ["train", "test"] as const) {
    const empty = classes.find((_, label) => splits[name].classCounts[label] === 0);
    if (empty === undefined) continue;
    const because = leftOut.length > 0 ? `; left out were ${list(leftOut)}` : "";
    throw new AppError("DATASET_INVALID", `class ${JSON.stringify(empty)} has no readable ${name} image${because}`);
  }
}

function list(leftOut: readonly LeftOut[]): string {
  const first = leftOut.slice(0, 5).map(({ path, reason }) => `${path} (${reason})`);
  return [...first, ...(leftOut.length > first.length ? ["..."] : [])].join("; ");
}

function describe(source: ImageSource, spec: DatasetSpec, shape: PixelShape, stored: StoredImages): DatasetManifest {
  return create(DatasetManifestSchema, {
    name: source.name,
    description: source.description,
    classes: [...source.classes],
    shape,
    channelMeans: [...stored.statistics.means],
    channelDeviations: [...stored.statistics.deviations],
    train: stored.train,
    test: stored.test,
    seed: spec.seed,
    preprocessingVersion,
    skippedImages: stored.leftOut.length,
  });
}

interface StoreManifestOptions {
  readonly name: string;
  readonly leftOut: readonly LeftOut[];
  readonly artifacts: ArtifactStore;
  readonly signal: AbortSignal;
}

async function storeManifest(
  manifest: DatasetManifest,
  { name, leftOut, artifacts, signal }: StoreManifestOptions,
): Promise<Dataset> {
  const json = new TextEncoder().encode(toJsonString(DatasetManifestSchema, manifest));
  const artifact = await artifacts.put(json, { mediaType: "application/json", name: "manifest.json", signal });
  return create(DatasetSchema, {
    digest: artifact.digest,
    manifest: artifact,
    name,
    classes: manifest.classes,
    trainImages: manifest.train?.imageCount ?? 0,
    testImages: manifest.test?.imageCount ?? 0,
    skippedImages: leftOut.length,
    skipped: leftOut.slice(0, namedLeftOut).map((file) => create(SkippedImageSchema, file)),
  });
}

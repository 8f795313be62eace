import type { Artifact } from "../../gen/millrace/v1/artifact_pb.ts";
import type { DatasetManifest } from "../../gen/millrace/v1/dataset_pb.ts";
import type { ArtifactStore } from "../artifacts/store.ts";
import { AppError } from "../errors.ts";
import { withSpan } from "../telemetry/spans.ts";
import type { SplitName } from "./sources/source.ts";

/** A whole split in memory that threads can share. */
export interface LoadedSplit {
  /** `count` images, each channel by channel, row by row. */
  readonly pixels: Uint8Array<SharedArrayBuffer>;
  /** The class of each image: an index into the manifest's classes. */
  readonly labels: Uint16Array<SharedArrayBuffer>;
  readonly count: number;
}

export interface LoadOptions {
  readonly artifacts: ArtifactStore;
  readonly signal: AbortSignal;
}

/**
 * Reads a split's shards, in order, straight into the memory that is handed out.
 *
 * @throws AppError DATASET_INVALID when a shard's size is not what the manifest says or a label is no class's; what the
 * artifact store throws, CANCELLED among it.
 */
export function loadSplit(manifest: DatasetManifest, split: SplitName, options: LoadOptions): Promise<LoadedSplit> {
  const attributes = {
    "millrace.dataset.split": split,
    "millrace.images.count": manifest[split]?.imageCount ?? 0,
  };
  return withSpan("load split", { attributes }, () => readSplit(manifest, split, options));
}

async function readSplit(
  manifest: DatasetManifest,
  split: SplitName,
  { artifacts, signal }: LoadOptions,
): Promise<LoadedSplit> {
  const { shape, classes } = manifest;
  const { imageCount: count = 0, shards = [] } = manifest[split] ?? {};
  const imageBytes = (shape?.height ?? 0) * (shape?.width ?? 0) * (shape?.channels ?? 0);
  const pixels = new Uint8Array(new SharedArrayBuffer(count * imageBytes));
  const labelBytes = new Uint8Array(new SharedArrayBuffer(count * 2));
  const read = (artifact: Artifact | undefined, target: Uint8Array): Promise<void> =>
    readInto(target, artifact, { artifacts, signal });
  let done = 0;
  for (const { imageCount, pixels: pixelArtifact, labels: labelArtifact } of shards) {
    const end = done + imageCount;
    await read(pixelArtifact, pixels.subarray(done * imageBytes, end * imageBytes));
    await read(labelArtifact, labelBytes.subarray(done * 2, end * 2));
    done = end;
  }
  if (done !== count) throw invalid(`the ${split} split has ${count} images, but its shards ${done}`);
  return { pixels, labels: labelsFrom(labelBytes, classes.length), count };
}

async function readInto(target: Uint8Array, artifact: Artifact | undefined, options: LoadOptions): Promise<void> {
  const { digest = "" } = artifact ?? {};
  let filled = 0;
  for await (const chunk of options.artifacts.get(digest, { signal: options.signal })) {
    if (filled + chunk.length > target.length) throw wrongSize(digest, `more than ${target.length}`, target.length);
    target.set(chunk, filled);
    filled += chunk.length;
  }
  if (filled < target.length) throw wrongSize(digest, String(filled), target.length);
}

/** Little-endian integers as this machine's, checked; in place where the machine is little-endian itself. */
function labelsFrom(bytes: Uint8Array<SharedArrayBuffer>, classes: number): Uint16Array<SharedArrayBuffer> {
  const view = new DataView(bytes.buffer);
  const labels = new Uint16Array(bytes.buffer);
  for (let image = 0; image < labels.length; image++) {
    const label = view.getUint16(image * 2, true);
    if (label >= classes) throw invalid(`image ${image} has label ${label}, but there are ${classes} classes`);
    labels[image] = label;
  }
  return labels;
}

function wrongSize(digest: string, found: string, expected: number): AppError {
  return invalid(`shard ${digest} has ${found} bytes where the manifest says ${expected}`);
}

function invalid(reason: string): AppError {
  return new AppError("DATASET_INVALID", `the data set does not match its manifest: ${reason}; prepare it again`);
}

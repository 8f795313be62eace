import { fromJsonString } from "@bufbuild/protobuf";
import { type DatasetManifest, DatasetManifestSchema, type DatasetSplit } from "../../gen/millrace/v1/dataset_pb.ts";
import { readBytes } from "../artifacts/read.ts";
import type { ArtifactStore } from "../artifacts/store.ts";
import { AppError } from "../errors.ts";

/** A manifest of a million shards would have fewer bytes. */
const maxManifestBytes = 512 * 1024 * 1024;

/**
 * The manifest of a prepared data set.
 *
 * @throws AppError ARTIFACT_NOT_FOUND when the store does not hold it; DATASET_INVALID when the artifact is no manifest or
 * contradicts itself.
 */
export async function readManifest(
  digest: string,
  { artifacts }: { readonly artifacts: ArtifactStore },
): Promise<DatasetManifest> {
  const bytes = await readBytes(artifacts, digest, { maxBytes: maxManifestBytes });
  let manifest: DatasetManifest;
  try {
    manifest = fromJsonString(DatasetManifestSchema, new TextDecoder().decode(bytes), { ignoreUnknownFields: true });
  } catch (error) {
    throw invalidManifest(`artifact ${digest} is no data set's manifest`, error);
  }
  const contradiction = contradictionIn(manifest);
  if (contradiction !== undefined) throw invalidManifest(`the manifest ${digest} contradicts itself: ${contradiction}`);
  return manifest;
}

function contradictionIn({
  shape,
  classes,
  channelMeans,
  channelDeviations,
  train,
  test,
}: DatasetManifest): string | undefined {
  if (shape === undefined || shape.height * shape.width * shape.channels === 0) return "it says no shape of images";
  if (classes.length < 2) return `it has ${classes.length} classes`;
  const { channels } = shape;
  if (channelMeans.length !== channels || channelDeviations.length !== channels) {
    return `it has ${channelMeans.length} means and ${channelDeviations.length} deviations for ${channels} channels`;
  }
  return contradictionInSplit("train", train, classes) ?? contradictionInSplit("test", test, classes);
}

function contradictionInSplit(
  name: string,
  split: DatasetSplit | undefined,
  classes: readonly string[],
): string | undefined {
  if (split === undefined || split.imageCount === 0) return `its ${name} split is empty`;
  if (split.classCounts.length !== classes.length) return `its ${name} split counts other classes than it names`;
  const inShards = split.shards.reduce((sum, { imageCount }) => sum + imageCount, 0);
  const inClasses = split.classCounts.reduce((sum, count) => sum + count, 0);
  if (inShards === split.imageCount && inClasses === split.imageCount) return undefined;
  return `its ${name} split has ${split.imageCount} images, but ${inShards} in shards and ${inClasses} in classes`;
}

function invalidManifest(message: string, cause?: unknown): AppError {
  return new AppError("DATASET_INVALID", `${message}; prepare the data set again`, { cause });
}

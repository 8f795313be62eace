import { fromJsonString } from "@bufbuild/protobuf";
import { type ModelManifest, ModelManifestSchema, type ModelVersion } from "../../gen/millrace/v1/model_pb.ts";
import { readBytes } from "../artifacts/read.ts";
import type { ArtifactStore } from "../artifacts/store.ts";

/** What a version is, read from the store and checked against its digest. */
export async function readModelManifest(version: ModelVersion, artifacts: ArtifactStore): Promise<ModelManifest> {
  const json = new TextDecoder().decode(await readBytes(artifacts, version.digest));
  return fromJsonString(ModelManifestSchema, json, { ignoreUnknownFields: true });
}

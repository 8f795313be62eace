/** What this process serves with, for people and programs that look. */
import { setImmediate as othersHadTheirTurn } from "node:timers/promises";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ModelVersion } from "../../gen/millrace/v1/model_pb.ts";
import { ServedModelState } from "../../gen/millrace/v1/prediction_pb.ts";
import type { Deployment } from "./deployment.ts";
import type { ModelState } from "./model-cache.ts";

type Serving = Pick<Deployment, "log" | "live" | "models">;

/** Every version of the model, newest first. */
export function listServedModels({ log, live, models }: Serving) {
  const versions = [...log.versions.values()].sort((a, b) => b.version - a.version);
  return versions.map((version) => {
    const aliases = [...log.aliases.keys()].filter((alias) => live(alias)?.version.version === version.version);
    return { model: servedModel(version), aliases: aliases.sort(), ...stateFields(models.state(version)) };
  });
}

/** The list, now and after changes, until the signal aborts. Changes of a moment, and those while nobody reads, come as one. */
export async function* watchServedModels(serving: Serving & Pick<Deployment, "changes">, signal: AbortSignal) {
  while (!signal.aborted) {
    const changed = serving.changes.next(signal);
    yield listServedModels(serving);
    await changed;
    await othersHadTheirTurn();
  }
}

/** A version in the words of an answer. */
export function servedModel(version: ModelVersion) {
  return {
    name: version.name,
    version: version.version,
    digest: version.digest,
    datasetDigest: version.lineage?.datasetDigest ?? "",
    runId: version.lineage?.runId ?? "",
  };
}

function stateFields(state: ModelState) {
  switch (state.kind) {
    case "ready":
      return { state: ServedModelState.READY, loadedAt: timestampFromDate(state.model.loadedAt) };
    case "failed":
      return { state: ServedModelState.FAILED, error: state.error.message };
    case "loading":
      return { state: ServedModelState.LOADING };
    case "unloaded":
      return { state: ServedModelState.UNLOADED };
  }
}

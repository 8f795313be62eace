/**
 * The repository part of the Open Inference Protocol. What the registry's aliases name is in memory always; these calls are for the other
 * versions, which otherwise are loaded when the first request names them.
 */
import type { ModelVersion } from "../../../gen/millrace/v1/model_pb.ts";
import { AppError } from "../../../lib/errors.ts";
import { championAlias, requireVersion } from "../../../lib/registry/model-log.ts";
import type { Deployment } from "../deployment.ts";
import { requireName, selectorOf } from "./selection.ts";

export interface IndexedModel {
  readonly name: string;
  readonly version: string;
  readonly state: "READY" | "LOADING" | "UNAVAILABLE";
  /** Empty where there is none. */
  readonly reason: string;
}

/** Versions are given as a number or an alias. */
export interface Repository {
  /** Every version, newest first, or only those in memory. */
  index(onlyReady: boolean): readonly IndexedModel[];
  /** Loads a version, the champion if it is empty. MODEL_NOT_FOUND, MODEL_MEMORY_FULL, or what loading throws. */
  load(name: string, version: string): Promise<void>;
  /** Unloads a version, or all that nobody needs if it is empty. MODEL_IN_USE for one that an alias names or a request waits for. */
  unload(name: string, version: string): void;
}

export function createRepository(deployment: Pick<Deployment, "log" | "models">): Repository {
  const { models } = deployment;
  const versions = () => [...deployment.log.versions.values()].sort((a, b) => b.version - a.version);
  return {
    index: (onlyReady) =>
      versions()
        .map((version) => indexed(version, models.state(version)))
        .filter(({ state }) => !onlyReady || state === "READY"),
    async load(name, version) {
      requireName(deployment, name);
      using _held = await models.hold(requireVersion(deployment.log, selectorOf(version || championAlias)));
    },
    unload(name, version) {
      requireName(deployment, name);
      if (version === "") {
        for (const each of versions()) models.unload(each);
        return;
      }
      const found = requireVersion(deployment.log, selectorOf(version));
      if (models.unload(found)) return;
      const text = `version ${found.version} of model "${name}" answers at the moment; move its alias first`;
      throw new AppError("MODEL_IN_USE", text, { details: { model: name, version: String(found.version) } });
    },
  };
}

function indexed({ name, version }: ModelVersion, state: ReturnType<Deployment["models"]["state"]>): IndexedModel {
  const of = { name, version: String(version) };
  if (state.kind === "ready") return { ...of, state: "READY", reason: "" };
  if (state.kind === "loading") return { ...of, state: "LOADING", reason: "" };
  const reason = state.kind === "failed" ? state.error.message : "not loaded; a request that names it loads it";
  return { ...of, state: "UNAVAILABLE", reason };
}

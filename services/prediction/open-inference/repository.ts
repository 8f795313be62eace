/**
 * The repository part of the Open Inference Protocol. What the registry's aliases name is in memory always; these calls are for the other
 * versions, which otherwise are loaded when the first request names them.
 */
import type { ModelVersion } from "../../../gen/millrace/v1/model_pb.ts";
import { AppError } from "../../../lib/errors.ts";
import { championAlias, requireVersion } from "../../../lib/registry/model-log.ts";
import { servedAliases } from "../deploy-aliases.ts";
import type { Deployment } from "../deployment.ts";
import { requireName, selectorOf } from "./selection.ts";

export interface IndexedModel {
  readonly name: string;
  readonly version: string;
  readonly state: "READY" | "LOADING" | "UNAVAILABLE";
  /** Empty where there is none. */
  readonly reason: string;
}

/** By name, as they came. */
export type RepositoryParameters = Readonly<Record<string, unknown>>;

/** The parameter `version` is a number or an alias. INVALID_REQUEST for one that is neither, and for parameters that would have no effect. */
export interface Repository {
  /** Every version, newest first, or only those in memory. */
  index(onlyReady: boolean): readonly IndexedModel[];
  /** Loads a version, the champion if none is given. MODEL_NOT_FOUND, MODEL_MEMORY_FULL, or what loading throws. */
  load(name: string, parameters: RepositoryParameters): Promise<void>;
  /**
   * Unloads a version, or all if none is given. MODEL_IN_USE if one of them answers under an alias, and then nothing is unloaded; also for
   * those that requests wait for.
   */
  unload(name: string, parameters: RepositoryParameters): void;
}

export function createRepository(deployment: Pick<Deployment, "log" | "live" | "models">): Repository {
  const { models } = deployment;
  const versions = () => [...deployment.log.versions.values()].sort((a, b) => b.version - a.version);
  return {
    index: (onlyReady) =>
      versions()
        .map((version) => indexed(version, models.state(version)))
        .filter(({ state }) => !onlyReady || state === "READY"),
    async load(name, parameters) {
      requireName(deployment, name);
      const version = versionFrom(parameters, ["version"]);
      using _held = await models.hold(requireVersion(deployment.log, selectorOf(version || championAlias)));
    },
    unload(name, parameters) {
      requireName(deployment, name);
      // Triton's clients always send the second one. No model here depends on another.
      const version = versionFrom(parameters, ["version", "unload_dependents"]);
      const unwanted = version === "" ? versions() : [requireVersion(deployment.log, selectorOf(version))];
      for (const each of unwanted) requireNoAlias(deployment, each);
      const [busy] = unwanted.filter((each) => !models.unload(each));
      if (busy !== undefined) throw inUse(busy, "is in use at the moment; try again when its requests are answered");
    },
  };
}

/** Empty if none is given. A parameter that is null is not given either. */
function versionFrom(parameters: RepositoryParameters, taken: readonly string[]): string {
  const refuse = (text: string) => new AppError("INVALID_REQUEST", text, { details: { field: "parameters" } });
  const given = Object.keys(parameters).filter((name) => (parameters[name] ?? undefined) !== undefined);
  const other = given.find((name) => !taken.includes(name));
  if (other !== undefined) {
    throw refuse(`parameter "${other}" is not taken, only ${taken.join(" and ")}; models are as the registry has them`);
  }
  const version = parameters.version ?? "";
  if (["string", "number", "bigint"].includes(typeof version)) return String(version);
  throw refuse("parameter version must be the number of a version or an alias");
}

function requireNoAlias({ live }: Pick<Deployment, "live">, version: ModelVersion): void {
  const alias = servedAliases.find((name) => live(name)?.version.version === version.version);
  if (alias === undefined) return;
  throw inUse(
    version,
    `is the ${alias} and cannot be unloaded; move its alias first, or name another by the parameter version`,
  );
}

function inUse({ name, version }: ModelVersion, reason: string): AppError {
  const details = { model: name, version: String(version) };
  return new AppError("MODEL_IN_USE", `version ${version} of model "${name}" ${reason}`, { details });
}

function indexed({ name, version }: ModelVersion, state: ReturnType<Deployment["models"]["state"]>): IndexedModel {
  const of = { name, version: String(version) };
  if (state.kind === "ready") return { ...of, state: "READY", reason: "" };
  if (state.kind === "loading") return { ...of, state: "LOADING", reason: "" };
  const reason = state.kind === "failed" ? state.error.message : "not loaded; a request that names it loads it";
  return { ...of, state: "UNAVAILABLE", reason };
}

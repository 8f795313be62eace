/** How the protocol names models and their versions. */
import { AppError } from "../../../lib/errors.ts";
import type { VersionSelector } from "../../../lib/registry/model-log.ts";
import type { Deployment } from "../deployment.ts";

/** MODEL_NOT_FOUND for another model than the one that is served here. */
export function requireName({ log }: Pick<Deployment, "log">, name: string): void {
  if (name === log.name) return;
  const text = `there is no model "${name}" here, only "${log.name}"`;
  throw new AppError("MODEL_NOT_FOUND", text, { details: { model: name } });
}

/** The protocol's versions are texts: ours are numbers, and everything else is an alias. */
export function selectorOf(version: string): VersionSelector {
  return /^\d{1,9}$/.test(version) ? { case: "version", value: Number(version) } : { case: "alias", value: version };
}

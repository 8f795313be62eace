import { createHash } from "node:crypto";
import type { ModelVersion } from "../../gen/millrace/v1/model_pb.ts";

/**
 * Whether the canary answers a request. Requests of one key are always decided alike, in every process; those that a share chooses, a larger
 * share chooses too. Another canary gets other keys, so that not the same users try out everything. Without a key it is left to chance.
 */
export function takesCanary(
  routingKey: string,
  canary: Pick<ModelVersion, "name" | "version">,
  share: number,
): boolean {
  return (routingKey === "" ? Math.random() : positionOf(`${canary.name} ${canary.version} ${routingKey}`)) < share;
}

/** Spreads texts evenly over 0 to below 1. */
function positionOf(text: string): number {
  return createHash("sha256").update(text).digest().readUInt32BE() / 2 ** 32;
}

/** The networks that can be asked for by name. To add one, write its file in `networks/` and list it here. */
import { AppError } from "../errors.ts";
import type { NetworkDefinition } from "./networks/definition.ts";
import { paper } from "./networks/paper.ts";
import { resnet9 } from "./networks/resnet9.ts";
import { small } from "./networks/small.ts";
import { speedrun, speedrunDeep, speedrunWide } from "./networks/speedrun.ts";

/** All networks, in the order in which they are shown. */
export const networks: readonly NetworkDefinition[] = [small, speedrun, speedrunWide, speedrunDeep, resnet9, paper];

/** The network of a name, or NETWORK_UNKNOWN listing those there are. */
export function findNetwork(name: string): NetworkDefinition {
  const network = networks.find((candidate) => candidate.name === name);
  if (network !== undefined) return network;
  const names = networks.map((candidate) => candidate.name).join(", ");
  throw new AppError("NETWORK_UNKNOWN", `there is no network ${name}; these are: ${names}`, {
    details: { network: name },
  });
}

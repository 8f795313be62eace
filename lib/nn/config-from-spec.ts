import type { TrainingSpec } from "../../gen/millrace/v1/training_pb.ts";
import { resolveTrainingConfig, type TrainingConfig } from "./configuration.ts";

/** The network of a specification that names none. */
export const defaultNetwork = "small";

/** The network's defaults with what a specification says otherwise. NETWORK_UNKNOWN, or CONFIGURATION_INVALID naming the key. */
export function configFromSpec({ network, epochs, seed, hyperparameters }: TrainingSpec): TrainingConfig {
  return resolveTrainingConfig(network || defaultNetwork, {
    ...hyperparameters,
    ...(epochs === undefined ? {} : { epochs }),
    ...(seed === undefined ? {} : { seed }),
  });
}

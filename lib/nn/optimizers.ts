/** The optimisers by the `kind` of the training configuration. */
import type { OptimizerConfig } from "./configuration.ts";
import { createAdam } from "./optimizers/adam.ts";
import type { Optimizer } from "./optimizers/definition.ts";
import { createSgd } from "./optimizers/sgd.ts";

/** The optimiser of a configuration. */
export function createOptimizer(config: OptimizerConfig): Optimizer {
  switch (config.kind) {
    case "sgd":
      return createSgd(config);
    case "adam":
      return createAdam(config);
  }
}

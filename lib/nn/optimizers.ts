/** The optimisers by the `kind` of the training configuration, and the groups that they treat differently. */
import type { OptimizerConfig } from "./configuration.ts";
import type { WeightRole } from "./layers/definition.ts";
import { createAdam } from "./optimizers/adam.ts";
import type { Optimizer } from "./optimizers/definition.ts";
import { createSgd } from "./optimizers/sgd.ts";

/** The optimiser of a configuration. */
export function createOptimizer(config: OptimizerConfig): Optimizer {
  return config.kind === "sgd" ? createSgd(config) : createAdam(config);
}

/** How the parameters of a group are updated. */
export interface ParameterGroup {
  /** Factor of the step's learning rate. */
  readonly learningRateFactor: number;
  /** Decoupled, multiplied by the learning rate. */
  readonly weightDecay: number;
}

/** The group of a weight: kernels decay; biases and batch normalisation do not, and have a learning-rate factor of their own. */
export function parameterGroup(config: OptimizerConfig, role: WeightRole): ParameterGroup {
  if (role !== "weight") return { learningRateFactor: config.biasLearningRateFactor, weightDecay: 0 };
  return { learningRateFactor: 1, weightDecay: config.kind === "adam" ? 0 : config.weightDecay };
}

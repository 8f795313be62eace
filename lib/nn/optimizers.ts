/** The optimisers by the `kind` of the training configuration, and the groups that they treat differently. */
import type { OptimizerConfig } from "./configuration.ts";
import type { WeightSpec } from "./layers/definition.ts";
import { createAdam } from "./optimizers/adam.ts";
import type { Optimizer, ParameterUpdate } from "./optimizers/definition.ts";
import { createMuon } from "./optimizers/muon.ts";
import { createSgd } from "./optimizers/sgd.ts";

/** The optimiser of a configuration. */
export function createOptimizer(config: OptimizerConfig): Optimizer {
  switch (config.kind) {
    case "sgd":
      return createSgd(config);
    case "muon":
      return createMuon({ ...config, nesterov: true });
    case "adam":
    case "adamw":
      return createAdam(config);
  }
}

/** How the parameters of a group are updated. */
export interface ParameterGroup extends Pick<ParameterUpdate, "weightDecay" | "orthogonal"> {
  /** Factor of the step's learning rate. */
  readonly learningRateFactor: number;
}

/**
 * The group of a weight: kernels decay; biases and batch normalisation do not, and have a learning-rate factor of their own. With Muon the
 * kernels that it does not make orthogonal have one, too.
 */
export function parameterGroup(config: OptimizerConfig, { role, mixesChannels = false }: WeightSpec): ParameterGroup {
  if (role !== "weight") {
    return { learningRateFactor: config.biasLearningRateFactor, weightDecay: 0, orthogonal: false };
  }
  const weightDecay = config.kind === "adam" ? 0 : config.weightDecay;
  if (config.kind !== "muon") return { learningRateFactor: 1, weightDecay, orthogonal: false };
  return mixesChannels
    ? { learningRateFactor: 1, weightDecay: 0, orthogonal: true }
    : { learningRateFactor: config.otherLearningRateFactor, weightDecay, orthogonal: false };
}

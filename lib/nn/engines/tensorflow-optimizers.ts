/** The optimisers of `lib/nn/optimizers` as operations of TensorFlow.js: the same formulas, the same state. */
import { AppError } from "../../errors.ts";
import type { OptimizerConfig } from "../configuration.ts";
import { core } from "../tensorflow.ts";

/** A parameter at the moment of its update. */
export interface TensorUpdate {
  readonly parameter: core.Tensor;
  readonly gradient: core.Tensor;
  /** By the names in the optimiser's `slots`. */
  readonly slots: Readonly<Record<string, core.Tensor>>;
  /** Of this step, by name: what the optimiser's `scalars` gave. */
  readonly scalars: Readonly<Record<string, number>>;
  readonly decays: boolean;
}

export interface UpdatedTensors {
  readonly parameter: core.Tensor;
  readonly slots: Readonly<Record<string, core.Tensor>>;
}

/** The function that updates a parameter, from an optimiser's configuration. */
export function createTensorUpdate(config: OptimizerConfig): (update: TensorUpdate) => UpdatedTensors {
  switch (config.kind) {
    case "sgd":
      return (update) => updateBySgd(config, update);
    case "adam":
      return (update) => updateByAdam(config, update);
  }
}

type Sgd = Extract<OptimizerConfig, { kind: "sgd" }>;
type Adam = Extract<OptimizerConfig, { kind: "adam" }>;

function updateBySgd({ momentum, nesterov, weightDecay }: Sgd, update: TensorUpdate): UpdatedTensors {
  const { gradient, slots, scalars } = update;
  const base = decayed(update, weightDecay);
  const step = (direction: core.Tensor) => core.sub(base, core.mul(direction, named(scalars, "learningRate")));
  if (slots.velocity === undefined) return { parameter: step(gradient), slots: {} };
  const velocity = core.add(core.mul(slots.velocity, momentum), gradient);
  const direction = nesterov ? core.add(gradient, core.mul(velocity, momentum)) : velocity;
  return { parameter: step(direction), slots: { velocity } };
}

function updateByAdam({ beta1, beta2, epsilon, weightDecay }: Adam, update: TensorUpdate): UpdatedTensors {
  const { gradient, slots, scalars } = update;
  const first = core.add(core.mul(named(slots, "first_moment"), beta1), core.mul(gradient, 1 - beta1));
  const second = core.add(core.mul(named(slots, "second_moment"), beta2), core.mul(core.square(gradient), 1 - beta2));
  const mean = core.mul(first, named(scalars, "firstCorrection"));
  const root = core.sqrt(core.mul(second, named(scalars, "secondCorrection")));
  const direction = core.div(mean, core.add(root, epsilon));
  const parameter = core.sub(decayed(update, weightDecay), core.mul(direction, named(scalars, "learningRate")));
  return { parameter, slots: { first_moment: first, second_moment: second } };
}

function decayed({ parameter, scalars, decays }: TensorUpdate, weightDecay: number): core.Tensor {
  if (!decays || weightDecay === 0) return parameter;
  return core.mul(parameter, 1 - named(scalars, "learningRate") * weightDecay);
}

function named<T>(values: Readonly<Record<string, T>>, name: string): T {
  const value = values[name];
  if (value === undefined) throw new AppError("INTERNAL", `the engine passed no ${name} to the optimiser`);
  return value;
}

/** The optimisers of `lib/nn/optimizers` as operations of TensorFlow.js: the same formulas, groups, clipping and state. */
import type { OptimizerConfig } from "../configuration.ts";
import { named } from "../named.ts";
import { newtonSchulz, tinyNorm } from "../optimizers/muon.ts";
import type { SgdOptions } from "../optimizers/sgd.ts";
import { createOptimizer, parameterGroup } from "../optimizers.ts";
import { core } from "../tensorflow.ts";
import type { BoundWeight } from "./tensorflow-network.ts";

/** A weight with the optimiser's tensors by slot name. Running statistics have none. */
export interface TrainedWeight extends BoundWeight {
  readonly slots: Readonly<Record<string, core.Variable>>;
}

export interface TensorOptimizer {
  readonly weights: readonly TrainedWeight[];
  /** Updates the weights from the gradients, by the names of their variables. `position.step` counts from 0. */
  update(gradients: core.NamedTensorMap, position: { readonly step: number; readonly learningRate: number }): void;
  dispose(): void;
}

/** The optimiser of a configuration over a network's weights. */
export function createTensorOptimizer(config: OptimizerConfig, bound: readonly BoundWeight[]): TensorOptimizer {
  const { slots, scalars } = createOptimizer(config);
  const weights = bound.map((weight) => ({ ...weight, slots: zeroSlots(weight, slots) }));
  return {
    weights,
    update(gradients, { step, learningRate }) {
      const clipping = clippingFactor(Object.values(gradients), config.gradientClipNorm);
      for (const { weight, variable, slots: current } of weights) {
        const gradient = gradients[variable.name];
        if (gradient === undefined) continue;
        const { learningRateFactor, ...group } = parameterGroup(config, weight);
        const next = nextTensors(config, {
          parameter: variable,
          gradient: clipping === undefined ? gradient : core.mul(gradient, clipping),
          slots: current,
          scalars: scalars(step + 1, learningRate),
          learningRate: learningRate * learningRateFactor,
          ...group,
        });
        variable.assign(next.parameter);
        for (const [slot, tensor] of Object.entries(next.slots)) current[slot]?.assign(tensor);
      }
    },
    dispose: () => core.dispose(weights.flatMap((weight) => Object.values(weight.slots))),
  };
}

/** A parameter at the moment of its update, as in `ParameterUpdate`. */
interface TensorUpdate {
  readonly parameter: core.Tensor;
  readonly gradient: core.Tensor;
  readonly slots: Readonly<Record<string, core.Tensor>>;
  readonly scalars: Readonly<Record<string, number>>;
  readonly learningRate: number;
  readonly weightDecay: number;
  readonly orthogonal: boolean;
}

interface UpdatedTensors {
  readonly parameter: core.Tensor;
  readonly slots: Readonly<Record<string, core.Tensor>>;
}

type AdamConfig = Extract<OptimizerConfig, { kind: "adam" | "adamw" }>;

function nextTensors(config: OptimizerConfig, update: TensorUpdate): UpdatedTensors {
  switch (config.kind) {
    case "sgd":
      return nextByMomentum(config, update);
    case "muon":
      return nextByMomentum({ ...config, nesterov: true }, update);
    case "adam":
    case "adamw":
      return nextByAdam(config, update);
  }
}

/** SGD, and Muon where the steps are made orthogonal. */
function nextByMomentum({ momentum, nesterov }: SgdOptions, update: TensorUpdate): UpdatedTensors {
  const { gradient, slots, orthogonal } = update;
  const step = (direction: core.Tensor) => (orthogonal ? turned(update, direction) : stepped(update, direction));
  if (slots.velocity === undefined) return { parameter: step(gradient), slots: {} };
  const velocity = core.add(core.mul(slots.velocity, momentum), gradient);
  const direction = nesterov ? core.add(gradient, core.mul(velocity, momentum)) : velocity;
  return { parameter: step(direction), slots: { velocity } };
}

/** sqrt(filters) parameter / |parameter| - learningRate orthogonal(direction). The filters are the last axis here. */
function turned({ parameter, learningRate }: TensorUpdate, direction: core.Tensor): core.Tensor {
  const filters = direction.shape.at(-1) ?? 0;
  const step = core.reshape(orthogonalized(core.reshape(direction, [-1, filters])), direction.shape);
  const unit = core.div(parameter, core.add(core.norm(parameter), tinyNorm));
  return core.sub(core.mul(unit, Math.sqrt(filters)), core.mul(step, learningRate));
}

function orthogonalized(matrix: core.Tensor): core.Tensor {
  const { linear, cubic, quintic, iterations } = newtonSchulz;
  let x = core.div(matrix, core.add(core.norm(matrix), tinyNorm));
  for (let iteration = 0; iteration < iterations; iteration++) {
    const gram = core.matMul(x, x, true, false);
    const polynomial = core.add(core.mul(gram, cubic), core.mul(core.matMul(gram, gram), quintic));
    x = core.add(core.mul(x, linear), core.matMul(x, polynomial));
  }
  return x;
}

function nextByAdam({ beta1, beta2, epsilon }: AdamConfig, update: TensorUpdate): UpdatedTensors {
  const { gradient, slots, scalars } = update;
  const first = core.add(core.mul(named(slots, "first_moment"), beta1), core.mul(gradient, 1 - beta1));
  const second = core.add(core.mul(named(slots, "second_moment"), beta2), core.mul(core.square(gradient), 1 - beta2));
  const mean = core.mul(first, named(scalars, "firstCorrection"));
  const root = core.sqrt(core.mul(second, named(scalars, "secondCorrection")));
  const parameter = stepped(update, core.div(mean, core.add(root, epsilon)));
  return { parameter, slots: { first_moment: first, second_moment: second } };
}

/** parameter (1 - learningRate weightDecay) - learningRate direction. */
function stepped({ parameter, learningRate, weightDecay }: TensorUpdate, direction: core.Tensor): core.Tensor {
  const base = weightDecay === 0 ? parameter : core.mul(parameter, 1 - learningRate * weightDecay);
  return core.sub(base, core.mul(direction, learningRate));
}

/** limit / max(limit, norm), with the norm of all gradients as one vector; undefined without a limit. */
function clippingFactor(gradients: readonly core.Tensor[], limit: number): core.Tensor | undefined {
  if (limit === 0) return undefined;
  const norm = core.sqrt(core.addN(gradients.map((gradient) => core.sum(core.square(gradient)))));
  return core.div(limit, core.maximum(norm, limit));
}

function zeroSlots({ weight, variable }: BoundWeight, slots: readonly string[]): Record<string, core.Variable> {
  const names = weight.role === "statistic" ? [] : slots;
  const zeros = () => core.tidy(() => core.variable(core.zerosLike(variable), false));
  return Object.fromEntries(names.map((slot) => [slot, zeros()]));
}

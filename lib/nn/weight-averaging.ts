/**
 * Averages over the weights of a training's steps, which classify better than the last step's alone. Running statistics are
 * averaged like the parameters, so that they go on fitting them. It all happens outside of the step, and so is the same for every engine.
 */
import type { WeightAveragingConfig } from "./configuration.ts";
import type { NetworkTrainer } from "./engine.ts";

type Weights = ReadonlyMap<string, Float32Array>;

/** A training's average. */
export interface WeightAveraging {
  /** Takes in the weights after a step, `step` counting from 0, `progress` the share of the training that is done then, in (0, 1]. */
  update(position: { readonly step: number; readonly progress: number }): void;
  /** What is evaluated and kept; valid until the next step. */
  weights(): Weights;
  /** What a checkpoint must keep; empty without averaging. */
  state(): Weights;
}

/** The average of a configuration, over the trainer's weights from now on, or going on from an earlier `state()`. */
export function createWeightAveraging(
  config: WeightAveragingConfig,
  trainer: Pick<NetworkTrainer, "weights" | "setWeights">,
  state?: Weights,
): WeightAveraging {
  if (config.kind === "none")
    return { update: () => undefined, weights: () => trainer.weights(), state: () => new Map() };
  const average = new Map(Array.from(trainer.weights(), ([key, values]) => [key, (state?.get(key) ?? values).slice()]));
  const update =
    config.kind === "ema"
      ? ({ step }: { step: number }) => moveTowards(average, trainer.weights(), 1 - emaDecay(config.decay, step))
      : (position: { step: number; progress: number }) => lookAhead(average, trainer, { ...config, ...position });
  return { update, weights: () => average, state: () => average };
}

/** The exponential moving average's decay, less in the first steps, so that the initial weights are soon forgotten (as in TensorFlow). */
export function emaDecay(decay: number, step: number): number {
  return Math.min(decay, (1 + step) / (10 + step));
}

/**
 * Lookahead (Zhang et al. 2019, arXiv 1907.08610): every few steps the slow weights go a share of the way to the fast ones, which go on
 * from there. The share falls from 1 to `rate` by the cube of the progress, as in airbench (github.com/KellerJordan/cifar10-airbench).
 */
function lookAhead(
  slow: Weights,
  fast: Pick<NetworkTrainer, "weights" | "setWeights">,
  { every, rate, step, progress }: { every: number; rate: number; step: number; progress: number },
): void {
  if ((step + 1) % every !== 0) return;
  moveTowards(slow, fast.weights(), 1 - (1 - rate) * progress ** 3);
  fast.setWeights(slow);
}

/** values += share (target - values), in place. */
function moveTowards(values: Weights, target: Weights, share: number): void {
  for (const [key, current] of values) {
    const goal = target.get(key) ?? current;
    for (let index = 0; index < current.length; index++) {
      const value = current[index] ?? 0;
      current[index] = value + share * ((goal[index] ?? 0) - value);
    }
  }
}

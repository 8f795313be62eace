/**
 * Averages over the weights of a training's steps, which classify better than the last step's alone. Running statistics are
 * averaged like the parameters, so that they go on fitting them. It all happens outside of the step, and so is the same for every engine.
 */
import type { WeightAveragingConfig } from "./configuration.ts";
import type { NetworkTrainer } from "./engine.ts";

type Weights = ReadonlyMap<string, Float32Array>;
type WeightsInTraining = Pick<NetworkTrainer, "weights" | "setWeights">;

/** A training's average. */
export interface WeightAveraging {
  /** Takes in the weights after a step, `step` counting from 0, `progress` the share of the training that is done then, in (0, 1]. */
  update(position: { readonly step: number; readonly progress: number }): void;
  /** What is evaluated and kept if the training ends here; valid until the next step. */
  weights(): Weights;
  /** What a checkpoint must keep; empty while nothing is averaged. Valid until the next step. */
  state(): Weights;
}

/** The average of a configuration, over the trainer's weights from now on, or going on from an earlier `state()`. */
export function createWeightAveraging(
  config: WeightAveragingConfig,
  trainer: WeightsInTraining,
  state: Weights = new Map(),
): WeightAveraging {
  switch (config.kind) {
    case "none":
      return { update: () => undefined, weights: () => trainer.weights(), state: () => new Map() };
    case "ema":
      return movingAverage(config, trainer, state);
    case "lookahead":
      return lookahead(config, trainer, state);
  }
}

function movingAverage({ decay }: { decay: number }, trainer: WeightsInTraining, state: Weights): WeightAveraging {
  const average = copyOf(state.size === 0 ? trainer.weights() : state);
  return {
    update: ({ step }) => moveTowards(average, trainer.weights(), 1 - emaDecay(decay, step)),
    weights: () => average,
    state: () => average,
  };
}

/** The exponential moving average's decay, less in the first steps, so that the initial weights are soon forgotten (as in TensorFlow). */
export function emaDecay(decay: number, step: number): number {
  return Math.min(decay, (1 + step) / (10 + step));
}

/**
 * Lookahead (Zhang et al. 2019, arXiv 1907.08610): every few steps the slow weights go a share of the way to the fast ones, which go on
 * from there. The share falls from 1 to `rate` by the cube of the progress, as in airbench (github.com/KellerJordan/cifar10-airbench).
 *
 * Two things keep short trainings from getting what they have not learned: the slow weights begin as the fast ones of the first move,
 * not as the initial ones, and what is evaluated takes in the steps since the last move by a move as it would be at the end.
 */
function lookahead(
  { every, rate }: { every: number; rate: number },
  fast: WeightsInTraining,
  state: Weights,
): WeightAveraging {
  let slow = copyOf(state);
  return {
    update({ step, progress }) {
      if ((step + 1) % every !== 0) return;
      if (slow.size === 0) slow = copyOf(fast.weights());
      moveTowards(slow, fast.weights(), 1 - (1 - rate) * progress ** 3);
      fast.setWeights(slow);
    },
    weights() {
      const final = copyOf(slow.size === 0 ? fast.weights() : slow);
      moveTowards(final, fast.weights(), rate);
      return final;
    },
    state: () => slow,
  };
}

/** Weights that stay as they are. */
export function copyOf(weights: Weights): Map<string, Float32Array> {
  return new Map(Array.from(weights, ([key, values]) => [key, values.slice()]));
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

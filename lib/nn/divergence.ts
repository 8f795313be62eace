/** Telling a training that has gone astray from one that is slow. */
import { AppError } from "../errors.ts";
import type { TrainingConfig } from "./configuration.ts";
import type { NetworkPlan } from "./plan.ts";
import { classWeightsOf } from "./targets.ts";
import type { TrainingData } from "./training-data.ts";

/**
 * A mean loss so many times that of a network that only guesses is no bad luck any more. Less can be one that is sure and wrong for some
 * epochs, such as about a rare class of great weight; what explodes goes on growing.
 */
const explosion = 10;
/** Steps of the whole training before which the loss says more of the initial weights than of the training. */
const leastSteps = 10;
const advice = "train with a smaller learning rate, or set optimizer.gradientClipNorm";

/** Where a training is, for people: both from 1. */
export interface Place {
  readonly epoch: number;
  readonly step: number;
}

/** Throws TRAINING_DIVERGED for a loss that is no finite number. */
export function checkLoss(loss: number, place: Place, name = "loss"): void {
  if (!Number.isFinite(loss)) throw diverged(`the ${name} became ${loss}`, place);
}

/** Throws TRAINING_DIVERGED where a tensor holds a number that is not finite. */
export function checkTensorsFinite(tensors: ReadonlyMap<string, Float32Array>, place: Place): void {
  for (const [name, values] of tensors) {
    if (!values.every(Number.isFinite)) throw diverged(`${name} holds a number that is not finite`, place);
  }
}

/**
 * The mean loss of a network that gives each class the same probability: ln(classes) times the mean weight of the images, which is the
 * same with label smoothing and mixup, plus the L2 penalties of the plan's weights.
 */
export function lossOfGuessing(
  { classes, nodes }: NetworkPlan,
  { data, config, images }: { data: TrainingData; config: Pick<TrainingConfig, "classWeights">; images: Uint32Array },
): number {
  const classWeights = classWeightsOf(config.classWeights, { data, images });
  const weight = images.reduce((sum, image) => sum + (classWeights[data.labels[image] ?? 0] ?? 1), 0) / images.length;
  const penalties = nodes
    .flatMap((node) => (node.trainable ? node.weights : []))
    .map(({ l2 = 0, values }) => (l2 === 0 ? 0 : l2 * values.reduce((sum, value) => sum + value * value, 0)));
  return weight * Math.log(classes) + penalties.reduce((sum, penalty) => sum + penalty, 0);
}

/**
 * Throws TRAINING_DIVERGED where a whole epoch's mean loss is more than ten times that of guessing, unless the training has only just
 * begun. Whole epochs only: a few batches may have more of the images that weigh much than their share.
 */
export function checkConvergence(
  { meanLoss, guessing, steps }: { meanLoss: number; guessing: number; steps: number },
  place: Place,
): void {
  const limit = explosion * guessing;
  if (steps < leastSteps || meanLoss <= limit) return;
  throw diverged(`the epoch's mean loss grew to ${short(meanLoss)}, more than ${short(limit)}`, place);
}

const short = (loss: number): string => loss.toPrecision(3);

function diverged(what: string, { epoch, step }: Place): AppError {
  return new AppError("TRAINING_DIVERGED", `${what} in epoch ${epoch}, step ${step}; ${advice}`, {
    details: { epoch: `${epoch}`, step: `${step}` },
  });
}

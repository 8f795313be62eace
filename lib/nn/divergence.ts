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
/** Steps before which the loss says more of the initial weights, or of single batches, than of the training. */
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

/** The mean loss of a network that gives each class the same probability. */
export interface GuessingLoss {
  /** Over all images. */
  readonly mean: number;
  /** Over images of the class that weighs most: no part of an epoch has more. */
  readonly heaviest: number;
}

/** ln(classes) times the weight of the images, which is the same with label smoothing and mixup, plus the L2 penalties of the plan's weights. */
export function lossOfGuessing(
  { classes, nodes }: NetworkPlan,
  { data, config, images }: { data: TrainingData; config: Pick<TrainingConfig, "classWeights">; images: Uint32Array },
): GuessingLoss {
  const classWeights = classWeightsOf(config.classWeights, { data, images });
  const weight = images.reduce((sum, image) => sum + (classWeights[data.labels[image] ?? 0] ?? 1), 0) / images.length;
  const penalties = nodes
    .flatMap((node) => (node.trainable ? node.weights : []))
    .map(({ l2 = 0, values }) => (l2 === 0 ? 0 : l2 * values.reduce((sum, value) => sum + value * value, 0)));
  const penalty = penalties.reduce((sum, penalty) => sum + penalty, 0);
  const lossOf = (weight: number): number => weight * Math.log(classes) + penalty;
  return { mean: lossOf(weight), heaviest: lossOf(Math.max(...classWeights)) };
}

/** What an epoch's steps so far have come to, and what to hold it against. */
export interface Losses {
  readonly meanLoss: number;
  /** The loss of guessing. */
  readonly guessing: number;
  /** Below ten of them nothing is judged. */
  readonly steps: number;
}

/**
 * Throws TRAINING_DIVERGED where a whole epoch's mean loss is more than ten times that of guessing, unless the training has only just
 * begun. `steps` are those of the whole training.
 */
export function checkConvergence({ meanLoss, guessing, steps }: Losses, place: Place): void {
  const limit = explosion * guessing;
  if (steps < leastSteps || meanLoss <= limit) return;
  throw diverged(`the epoch's mean loss grew to ${short(meanLoss)}, more than ${short(limit)}`, place);
}

/**
 * The same for a part of an epoch, milder in three ways. `steps` are those of the part. `guessing` is that of the heaviest class, of which a few
 * batches may have more than their share. And the newest step has to be as bad as the mean: a bad beginning may be over.
 */
export function checkPartOfEpoch({ lastLoss, ...part }: Losses & { readonly lastLoss: number }, place: Place): void {
  if (lastLoss > explosion * part.guessing) checkConvergence(part, place);
}

const short = (loss: number): string => loss.toPrecision(3);

function diverged(what: string, { epoch, step }: Place): AppError {
  return new AppError("TRAINING_DIVERGED", `${what} in epoch ${epoch}, step ${step}; ${advice}`, {
    details: { epoch: `${epoch}`, step: `${step}` },
  });
}

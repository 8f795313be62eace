/** Telling a training that has gone astray from one that is slow, before its weights get into a checkpoint or a model. */
import { AppError } from "../errors.ts";

/** A mean loss so many times that of a network that only guesses is no bad luck any more. */
const explosion = 3;
const advice = "train with a smaller learning rate, or set optimizer.gradientClipNorm";

/** Where a training is, for people: both from 1. */
export interface Place {
  readonly epoch: number;
  readonly step: number;
}

/** Throws TRAINING_DIVERGED for a loss that is no finite number. */
export function checkLoss(loss: number, place: Place): void {
  if (!Number.isFinite(loss)) throw diverged(`the loss became ${loss}`, place);
}

/**
 * Throws TRAINING_DIVERGED where the epoch's mean loss so far is more than three times that of guessing, or a tensor holds a number that is not finite.
 * The loss of guessing is ln(classes), or the first step's where that is more: penalties and the initial weights are part of it.
 */
export function checkConvergence(
  { meanLoss, initialLoss, classes }: { meanLoss: number; initialLoss: number; classes: number },
  tensors: ReadonlyMap<string, Float32Array>,
  place: Place,
): void {
  const limit = explosion * Math.max(Math.log(classes), initialLoss);
  if (meanLoss > limit)
    throw diverged(`the epoch's mean loss grew to ${short(meanLoss)}, more than ${short(limit)}`, place);
  for (const [name, values] of tensors) {
    if (!values.every(Number.isFinite)) throw diverged(`${name} holds a number that is not finite`, place);
  }
}

const short = (loss: number): string => loss.toPrecision(3);

function diverged(what: string, { epoch, step }: Place): AppError {
  return new AppError("TRAINING_DIVERGED", `${what} in epoch ${epoch}, step ${step}; ${advice}`, {
    details: { epoch: `${epoch}`, step: `${step}` },
  });
}

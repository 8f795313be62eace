/** The arithmetic of epochs: what the steps of one add up to, which was the best, and whether another follows. */
import type { TrainingConfig } from "./configuration.ts";
import type { EpochMeasures, EpochReport, TrainingEnd } from "./training.ts";

/** Sums over the steps of the epoch under way. */
export interface EpochSums {
  readonly steps: number;
  readonly loss: number;
  /** Images classified right. */
  readonly correct: number;
  /** Spent in steps, breaks and checkpoints left out. */
  readonly durationMs: number;
}

/** Those of an epoch that has not begun. */
export const noSums: EpochSums = { steps: 0, loss: 0, correct: 0, durationMs: 0 };

/** The sums after one more step. */
export function addStep(sums: EpochSums, step: Omit<EpochSums, "steps">): EpochSums {
  return {
    steps: sums.steps + 1,
    loss: sums.loss + step.loss,
    correct: sums.correct + step.correct,
    durationMs: sums.durationMs + step.durationMs,
  };
}

export interface EpochPosition {
  readonly config: TrainingConfig;
  /** From 1. */
  readonly epoch: number;
  readonly learningRate: number;
  /** Steps to the end of the whole training. */
  readonly stepsLeft: number;
  /** Validations to the end of the whole training. */
  readonly validationsLeft: number;
  /** What one of them takes; 0 while that is not known, and where there are none. */
  readonly validationMs: number;
  /** What is left of the time that the training may take. */
  readonly leftMs: number;
}

/** An epoch as its steps so far show it. */
export function measureEpoch(sums: EpochSums, position: EpochPosition): EpochMeasures {
  const { config, epoch, learningRate, stepsLeft, validationsLeft, validationMs, leftMs } = position;
  const images = sums.steps * config.batchSize;
  const remainingMs = (stepsLeft * sums.durationMs) / sums.steps + validationsLeft * validationMs;
  return {
    epoch,
    epochs: config.epochs,
    loss: sums.loss / sums.steps,
    accuracy: sums.correct / images,
    learningRate,
    imagesPerSecond: (1000 * images) / sums.durationMs,
    remainingMs: Math.max(0, Math.min(remainingMs, leftMs)),
  };
}

/** The number of the epoch with the highest validation accuracy, the first of several: 1 where nothing is validated, 0 before any epoch. */
export function bestEpoch(epochs: readonly EpochReport[]): number {
  const accuracies = epochs.map(({ validationAccuracy = -1 }) => validationAccuracy);
  return epochs[accuracies.indexOf(Math.max(...accuracies))]?.epoch ?? 0;
}

/** A position between two epochs. */
export interface TrainingPosition {
  /** Those done; the last one is short where time ran out in it. */
  readonly epochs: readonly EpochReport[];
  /** Steps done, and those that the whole training would have. */
  readonly step: number;
  readonly steps: number;
  /** Share of the training that is done, by its steps or its time. */
  readonly progress: number;
}

/** Why the training ends there, or undefined where another epoch follows. */
export function trainingEnd(patience: number, position: TrainingPosition): TrainingEnd | undefined {
  const { epochs, step, steps, progress } = position;
  if (step === steps) return "completed";
  if (epochs.length === 0) return undefined;
  if (progress >= 1) return "time budget";
  return patience > 0 && epochs.length - bestEpoch(epochs) >= patience ? "early stopping" : undefined;
}

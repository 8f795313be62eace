/** Learning-rate schedules: pure functions from the position in the training to the rate. */
import type { ScheduleConfig } from "./configuration.ts";

/** A position in the training, and the configured learning rate, which is the schedule's peak. */
export interface SchedulePosition {
  /** Steps done, from 0. */
  readonly step: number;
  /** Steps of the whole training. */
  readonly steps: number;
  readonly peak: number;
}

/** The learning rate of a step. */
export function learningRateAt(schedule: ScheduleConfig, position: SchedulePosition): number {
  switch (schedule.kind) {
    case "constant":
      return position.peak;
    case "cosine":
      return cosineRate(schedule, position);
    case "one-cycle":
      return oneCycleRate(schedule, position);
  }
}

/** Linear warm-up over a share of the steps, then half a cosine down to `final` times the peak (SGDR, arXiv 1608.03983, without restarts). */
function cosineRate(options: { warmUp: number; final: number }, { step, steps, peak }: SchedulePosition): number {
  const warmUpSteps = options.warmUp * steps;
  if (step < warmUpSteps) return (peak * (step + 1)) / Math.ceil(warmUpSteps);
  const progress = (step - warmUpSteps) / Math.max(1, steps - warmUpSteps);
  return peak * (options.final + (1 - options.final) * 0.5 * (1 + Math.cos(Math.PI * progress)));
}

/** A triangle: linear from `initial` times the peak up to it over a share of the steps, then linear down to `final` times (arXiv 1708.07120). */
function oneCycleRate(
  options: { warmUp: number; initial: number; final: number },
  { step, steps, peak }: SchedulePosition,
): number {
  const turn = options.warmUp * steps;
  if (step < turn) return peak * (options.initial + (1 - options.initial) * (step / turn));
  return peak * (1 + (options.final - 1) * ((step - turn) / Math.max(1, steps - turn)));
}

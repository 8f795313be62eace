/** Learning-rate schedules: pure functions from the share of the training that is done to the rate. */
import type { ScheduleConfig } from "./configuration.ts";

/** A position in the training, and the configured learning rate, which is the schedule's peak. */
export interface SchedulePosition {
  /** Share of the training that is done before the step, in [0, 1]; 1 is reached by time alone, in a step that was due when it ran out. */
  readonly progress: number;
  /** Share of the training that one step is. */
  readonly stepShare: number;
  readonly peak: number;
}

/** The learning rate of a step. */
export function learningRateAt(schedule: ScheduleConfig, position: SchedulePosition): number {
  switch (schedule.kind) {
    case "constant":
      return position.peak;
    case "step":
      return stepRate(schedule, position);
    case "cosine":
      return cosineRate(schedule, position);
    case "one-cycle":
      return oneCycleRate(schedule, position);
  }
}

/**
 * The share of a training that is done: that of its steps or, with a limit in minutes, that of its time where this is more. So one
 * that has to stop early ends with a finished schedule. Without a limit it depends on the step alone, and can be reproduced.
 */
export function progressAt(position: { step: number; steps: number; elapsedMs: number; maxMinutes: number }): number {
  const { step, steps, elapsedMs, maxMinutes } = position;
  return Math.min(1, Math.max(step / steps, maxMinutes === 0 ? 0 : elapsedMs / (60_000 * maxMinutes)));
}

/** The peak, multiplied by `factor` after each of the shares `at` of the training. */
function stepRate(options: { at: readonly number[]; factor: number }, { progress, peak }: SchedulePosition): number {
  return peak * options.factor ** options.at.filter((share) => progress >= share).length;
}

/** Linear warm-up over a share of the training, whose last step has the peak, then half a cosine down to `final` times that (SGDR, arXiv 1608.03983, without restarts). */
function cosineRate(
  { warmUp, final }: { warmUp: number; final: number },
  { progress, stepShare, peak }: SchedulePosition,
): number {
  if (progress < warmUp) return peak * Math.min(1, (progress + stepShare) / warmUp);
  return peak * (final + (1 - final) * 0.5 * (1 + Math.cos(Math.PI * descent(progress, warmUp))));
}

/** A triangle: linear from `initial` times the peak up to it over a share of the training, then linear down to `final` times (arXiv 1708.07120). */
function oneCycleRate(
  { warmUp, initial, final }: { warmUp: number; initial: number; final: number },
  { progress, peak }: SchedulePosition,
): number {
  if (progress < warmUp) return peak * (initial + (1 - initial) * (progress / warmUp));
  return peak * (1 + (final - 1) * descent(progress, warmUp));
}

/** How much of the way down is done, once the warm-up is over; a training that is all warm-up ends at the peak. */
function descent(progress: number, warmUp: number): number {
  return warmUp === 1 ? 0 : (progress - warmUp) / (1 - warmUp);
}

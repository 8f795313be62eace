import { AppError } from "../../lib/errors.ts";
import type { AdmissionLimits } from "./admission.ts";

/** How batches are formed; may be changed while they are. */
export interface BatchSettings extends AdmissionLimits {
  /**
   * How long an item waits for others while a run could begin. 0 waits for nobody: batches then form of what has come in while the
   * batch before was running, which costs no time at all.
   */
  readonly maxDelayMs: number;
}

/** What a person takes for at once, and what the machine may stand still: to let in more only makes answers later. */
export const defaultMaxWaitMs = 75;

/** Throws INVALID_REQUEST with the field that cannot be. */
export function checkedSettings(settings: BatchSettings): BatchSettings {
  const { maxBatchSize, maxDelayMs, maxQueueLength, maxWaitMs } = settings;
  const check = (field: keyof BatchSettings, valid: boolean, must: string): void => {
    if (valid) return;
    throw new AppError("INVALID_REQUEST", `${field} is ${settings[field]}, but must be ${must}`, {
      details: { field },
    });
  };
  check("maxBatchSize", Number.isInteger(maxBatchSize) && maxBatchSize > 0, "a whole number from 1");
  check("maxDelayMs", Number.isFinite(maxDelayMs) && maxDelayMs >= 0, "a number from 0");
  check("maxQueueLength", Number.isInteger(maxQueueLength) && maxQueueLength > 0, "a whole number from 1");
  check("maxWaitMs", Number.isFinite(maxWaitMs) && maxWaitMs >= 0, "a number from 0");
  return settings;
}

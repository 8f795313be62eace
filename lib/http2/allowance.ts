import { ConnectionError, errorCode } from "./frames.ts";

export interface AllowanceOptions {
  /** Most that may be spent at once, after a pause. */
  readonly atOnce: number;
  readonly perSecond: number;
  /** The time in milliseconds, from any zero. Default: the process's clock. */
  readonly nowMs?: () => number;
}

/** A token bucket: how much of what is cheap for a peer and dear for us it may ask for. */
export interface Allowance {
  /** Throws a ConnectionError, ENHANCE_YOUR_CALM, when there is nothing left. */
  spend(): void;
}

export function createAllowance({ atOnce, perSecond, nowMs = () => performance.now() }: AllowanceOptions): Allowance {
  let left = atOnce;
  let lastMs = nowMs();
  return {
    spend() {
      if (left < 1) {
        const now = nowMs();
        left = Math.min(atOnce, left + (perSecond * (now - lastMs)) / 1_000);
        lastMs = now;
      }
      if (left < 1) throw new ConnectionError(errorCode.enhanceYourCalm, "too many frames that ask for nothing");
      left--;
    },
  };
}

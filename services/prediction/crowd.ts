/**
 * Tells a crowd from a burst. After a burst, or when the machine has stood still, those who come wait for long, but each for less than the one
 * before: it passes by itself, and to refuse anybody would be for nothing. In a crowd more comes than goes, and the wait stays until some are
 * turned away. As CoDel does (Nichols and Jacobson 2012, RFC 8289), this looks at the shortest wait of an interval: a queue that is ever short is
 * one that goes away.
 */
export interface CrowdWatch {
  /** Somebody comes. @param waitMs How long whoever comes now would wait. @param longMs What counts as long. */
  noteArrival(waitMs: number, longMs: number): void;
  /** Somebody was answered. While nobody is, what grows is no crowd: the machine stands still, or the network is slow. */
  noteAnswer(): void;
  /** Somebody was refused. */
  noteRefusal(): void;
  readonly isCrowded: boolean;
}

/** Long enough to show whether the wait goes down, and so short that few have come before a crowd is known. */
const intervalMs = 12;
/** By which a wait has gone down within an interval that has: that of a burst goes down by some milliseconds, as fast as time goes on at most. */
const downMs = 1;
/** A crowd has gone when nobody was refused for so long. */
const calmMs = 100;

/** @param nowMs The time in milliseconds, from any zero. Default: the process's clock. */
export function createCrowdWatch(nowMs: () => number = () => performance.now()): CrowdWatch {
  let isCrowded = false;
  let refusedMs = 0;
  let answeredMs = nowMs();
  /** Of the interval: when it began, the first wait in it, and the shortest. */
  let beganMs: number | undefined;
  let firstMs = 0;
  let shortestMs = 0;

  return {
    noteArrival(waitMs, longMs) {
      const now = nowMs();
      if (isCrowded && now - refusedMs <= calmMs) return;
      isCrowded = false;
      if (beganMs === undefined) {
        beganMs = now;
        firstMs = waitMs;
        shortestMs = waitMs;
        return;
      }
      shortestMs = Math.min(shortestMs, waitMs);
      if (now - beganMs < intervalMs) return;
      const standsStill = now - answeredMs > intervalMs;
      isCrowded = !standsStill && shortestMs > longMs && shortestMs >= firstMs - downMs;
      refusedMs = now;
      beganMs = undefined;
    },
    noteAnswer() {
      const now = nowMs();
      // What has gathered while it stood still begins to go down now.
      if (now - answeredMs > intervalMs) beganMs = undefined;
      answeredMs = now;
    },
    noteRefusal() {
      refusedMs = nowMs();
    },
    get isCrowded() {
      return isCrowded;
    },
  };
}

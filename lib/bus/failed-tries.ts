import type { Settlement } from "./settlement.ts";

/** Reasons that are kept; beyond that the oldest go. One whose message went to another instance is never asked for. */
const maxReasons = 1_000;

/** Told of a try that this process did not see fail. */
const unknownReason =
  "not known to this process: the try was in another one, which may have died, or hung for too long";

/** Why tries of a stage's messages failed, as far as this process knows. The broker counts tries, but keeps no reasons. */
export interface FailedTries {
  /** Why the try before this one failed; undefined for the first. Messages are known by their sequence in the stream. */
  reasonBefore(sequence: number, attempt: number): string | undefined;
  /** Notes what became of a try. */
  note(sequence: number, settlement: Settlement): void;
}

export function createFailedTries(): FailedTries {
  /** By sequence, in the order in which the tries failed. */
  const reasons = new Map<number, string>();
  return {
    reasonBefore: (sequence, attempt) => (attempt > 1 ? (reasons.get(sequence) ?? unknownReason) : undefined),
    note(sequence, settlement) {
      reasons.delete(sequence);
      if (settlement.kind !== "retry") return;
      const { code, message } = settlement.error;
      reasons.set(sequence, `${code}: ${message}`);
      const [oldest] = reasons.keys();
      if (reasons.size > maxReasons && oldest !== undefined) reasons.delete(oldest);
    },
  };
}

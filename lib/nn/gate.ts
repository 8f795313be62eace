/** The decision whether a model may go live: a pure function of the evidence. */

/** What the gate reads of an evaluation. */
export interface GateEvidence {
  /** Share of the test images classified right, in [0, 1]. */
  readonly accuracy: number;
  /** Ends of its 95 % confidence interval. */
  readonly accuracyLow: number;
  readonly accuracyHigh: number;
}

export interface GateQuestion {
  readonly candidate: GateEvidence;
  /** The live model on the same test images; undefined where there is none, or none that can be compared. */
  readonly champion?: GateEvidence | undefined;
  /** Least accuracy, in [0, 1]. */
  readonly minimumAccuracy: number;
}

/** One condition of the gate. */
export interface GateCheck {
  readonly name: "minimum_accuracy" | "not_worse_than_champion";
  readonly passed: boolean;
  readonly actual: number;
  readonly required: number;
  /** The check for people, in one sentence. */
  readonly message: string;
}

export interface GateDecision {
  /** Whether all checks passed. */
  readonly promote: boolean;
  readonly checks: readonly GateCheck[];
}

/**
 * A model goes live if it reaches the minimum accuracy and, where another is live, if its accuracy is not below the 95 % confidence
 * interval of that one's on the same images: what lies inside may be chance, and a fresh model is worth having.
 */
export function decide({ candidate, champion, minimumAccuracy }: GateQuestion): GateDecision {
  const checks = [check("minimum_accuracy", candidate.accuracy, { required: minimumAccuracy, of: "the minimum" })];
  if (champion !== undefined) {
    const of = `the lower end of the live model's interval (accuracy ${percent(champion.accuracy)})`;
    checks.push(check("not_worse_than_champion", candidate.accuracy, { required: champion.accuracyLow, of }));
  }
  return { promote: checks.every(({ passed }) => passed), checks };
}

function check(name: GateCheck["name"], actual: number, { required, of }: { required: number; of: string }): GateCheck {
  const passed = actual >= required;
  const message = `accuracy ${percent(actual)} is ${passed ? "not below" : "below"} ${percent(required)}, ${of}`;
  return { name, passed, actual, required, message };
}

const percent = (share: number): string => `${(100 * share).toFixed(2)} %`;

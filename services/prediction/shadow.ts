/** Requests sent to a version that is only tried out: it is asked after the answer is given, last of all, and nobody sees what it says. */
import type { ModelManifest } from "../../gen/millrace/v1/model_pb.ts";
import { shadowAlias } from "../../lib/registry/model-log.ts";
import type { AnsweringDependencies } from "./answering.ts";
import type { Classification, LoadedModel } from "./serving.ts";

export interface MirroredAnswer {
  readonly model: LoadedModel;
  /** uint8 [C, H, W]. */
  readonly pixels: Uint8Array;
  readonly answer: Classification;
}

/** What a shadow version made of an image: undefined if it could not answer. */
export type ShadowResult = { readonly agrees: boolean; readonly maxDifference: number } | undefined;

/** Asks the shadow, if there is one and the request is in its share, and notes how it compares. Does not wait for it. */
export function mirror({ deployment, answers }: AnsweringDependencies, mirrored: MirroredAnswer): void {
  const shadow = deployment.live(shadowAlias);
  const { model } = mirrored;
  if (shadow === undefined || shadow.version.version === model.version.version) return;
  if (Math.random() >= (deployment.log.shares.get(shadowAlias) ?? 0)) return;
  void ask(deployment, shadow, mirrored)
    // Whatever went wrong, from a full queue to a model of another shape, is counted as a comparison that failed.
    .catch(() => undefined)
    .then((result) => answers.noteShadow(model, shadow.version.version, result));
}

async function ask(
  { models }: AnsweringDependencies["deployment"],
  { version }: LoadedModel,
  { model, pixels, answer }: MirroredAnswer,
): Promise<ShadowResult> {
  using held = await models.hold(version);
  if (!isComparable(held.model.manifest, model.manifest)) return undefined;
  const { output } = await held.model.classify(() => Promise.resolve(pixels), { priority: "low" });
  return compare(answer.probabilities, output.probabilities);
}

function isComparable(a: ModelManifest, b: ModelManifest): boolean {
  const [x, y] = [a.input, b.input];
  const sameShape = x?.channels === y?.channels && x?.height === y?.height && x?.width === y?.width;
  return sameShape && a.classes.join("\n") === b.classes.join("\n");
}

function compare(expected: Float32Array, actual: Float32Array): ShadowResult {
  const differences = expected.map((probability, index) => Math.abs(probability - (actual[index] ?? 0)));
  return { agrees: mostProbable(expected) === mostProbable(actual), maxDifference: Math.max(...differences) };
}

/** Index of the most probable class, the first of equals. */
export function mostProbable(probabilities: Float32Array): number {
  let most = 0;
  for (let index = 1; index < probabilities.length; index++) {
    if ((probabilities[index] ?? 0) > (probabilities[most] ?? 0)) most = index;
  }
  return most;
}

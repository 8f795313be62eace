/** What a network is to answer for a labelled image, as a distribution over the classes times the image's weight in the loss. */
import type { TrainingConfig } from "./configuration.ts";
import type { TrainingData } from "./training-data.ts";

/**
 * Writes the distribution of a label into `targets` at `offset`: 1 - smoothing on the label and smoothing shared equally among
 * all classes, the label's included (Szegedy et al. 2016, arXiv 1512.00567). The row sums to `weight`, which is 1 by default.
 */
export function writeSmoothLabel(
  targets: Float32Array,
  options: { offset: number; classes: number; label: number; smoothing: number; weight?: number },
): void {
  const { offset, classes, label, smoothing, weight = 1 } = options;
  targets.fill((weight * smoothing) / classes, offset, offset + classes);
  targets[offset + label] = weight * (1 - smoothing + smoothing / classes);
}

/**
 * The factor of the loss for each class. "balanced" is n / (classes * count) over the `images` trained on, so that all classes
 * have the same sum and the mean over the images is 1.
 */
export function classWeightsOf(
  classWeights: TrainingConfig["classWeights"],
  { data: { classes, labels }, images }: { data: TrainingData; images: Uint32Array },
): readonly number[] {
  if (typeof classWeights === "object") return classWeights;
  if (classWeights === "none") return classes.map(() => 1);
  const counts = classes.map(() => 0);
  for (const image of images) {
    const label = labels[image] ?? 0;
    counts[label] = (counts[label] ?? 0) + 1;
  }
  return counts.map((count) => images.length / (classes.length * count));
}

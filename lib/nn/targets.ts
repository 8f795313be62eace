/** What a network is to answer for a labelled image, as a distribution over the classes. */

/**
 * Writes the distribution of a label into `targets` at `offset`: 1 - smoothing on the label and smoothing shared equally among
 * all classes, the label's included (Szegedy et al. 2016, arXiv 1512.00567). `weight`, the factor of the loss for this class,
 * multiplies the row, which then sums to it; default 1.
 */
export function writeSmoothLabel(
  targets: Float32Array,
  options: { offset: number; classes: number; label: number; smoothing: number; weight?: number },
): void {
  const { offset, classes, label, smoothing, weight = 1 } = options;
  targets.fill((weight * smoothing) / classes, offset, offset + classes);
  targets[offset + label] = weight * (1 - smoothing + smoothing / classes);
}

/** The quality of a classifier from its predictions. Pure functions; every number is a share in [0, 1] unless it says otherwise. */
import { AppError } from "../errors.ts";

/** Two ends of a confidence interval. */
export interface Interval {
  readonly low: number;
  readonly high: number;
}

export interface ClassMetrics {
  readonly name: string;
  /** Of the images called so, the share that was. 0 where none was called so. */
  readonly precision: number;
  /** Of the images that were so, the share called so. 0 where there was none. */
  readonly recall: number;
  /** Harmonic mean of the two. 0 where both are 0. */
  readonly f1: number;
  /** Images of this class (the support). */
  readonly imageCount: number;
}

export interface Quality {
  readonly accuracy: number;
  /** Ends of the accuracy's 95 % Wilson interval. */
  readonly accuracyLow: number;
  readonly accuracyHigh: number;
  /** Mean of the classes' F1, each class counting the same. */
  readonly macroF1: number;
  /** In nats. */
  readonly logLoss: number;
  readonly expectedCalibrationError: number;
  readonly classes: readonly ClassMetrics[];
  /** Images of class r that were called class c, at index r * classes + c. */
  readonly confusionMatrix: readonly number[];
}

/** What was predicted, and what is true. */
export interface LabelledPredictions {
  /** [n, classes], rows that sum to 1. */
  readonly probabilities: Float32Array;
  /** n indices of classes. */
  readonly labels: ArrayLike<number>;
  /** Names of the classes. */
  readonly classes: readonly string[];
}

/** All metrics at once. Throws DATASET_INVALID where there are no images, or labels and probabilities do not fit each other. */
export function evaluatePredictions(predictions: LabelledPredictions): Quality {
  checkPredictions(predictions);
  const { labels, classes } = predictions;
  const matrix = confusionMatrix(predictions);
  const correct = classes.reduce((sum, _, index) => sum + at(matrix, index * classes.length + index), 0);
  const interval = wilsonInterval(correct, labels.length);
  const perClass = classMetrics(matrix, classes);
  return {
    accuracy: correct / labels.length,
    accuracyLow: interval.low,
    accuracyHigh: interval.high,
    macroF1: perClass.reduce((sum, { f1 }) => sum + f1, 0) / classes.length,
    logLoss: logLoss(predictions),
    expectedCalibrationError: expectedCalibrationError(predictions),
    classes: perClass,
    confusionMatrix: matrix,
  };
}

/** The class of the largest probability in each row; the first where several are equal. */
function predictedClasses({
  probabilities,
  classes,
}: Pick<LabelledPredictions, "probabilities" | "classes">): number[] {
  const count = classes.length;
  return Array.from({ length: probabilities.length / count }, (_, image) => {
    let best = 0;
    for (let k = 1; k < count; k++) {
      if (at(probabilities, image * count + k) > at(probabilities, image * count + best)) best = k;
    }
    return best;
  });
}

/** Counts of true class (row) by predicted class (column), row by row. */
export function confusionMatrix(predictions: LabelledPredictions): number[] {
  const { labels, classes } = predictions;
  const matrix = new Array<number>(classes.length ** 2).fill(0);
  for (const [image, predicted] of predictedClasses(predictions).entries()) {
    const cell = at(labels, image) * classes.length + predicted;
    matrix[cell] = at(matrix, cell) + 1;
  }
  return matrix;
}

/** Precision tp / (tp + fp), recall tp / (tp + fn) and F1 2 tp / (2 tp + fp + fn) of each class, from a confusion matrix. */
function classMetrics(matrix: readonly number[], classes: readonly string[]): ClassMetrics[] {
  const size = classes.length;
  return classes.map((name, index) => {
    const sum = (cell: (other: number) => number) =>
      classes.reduce((total, _, other) => total + at(matrix, cell(other)), 0);
    const hits = at(matrix, index * size + index);
    const imageCount = sum((other) => index * size + other);
    const called = sum((other) => other * size + index);
    return {
      name,
      precision: ratio(hits, called),
      recall: ratio(hits, imageCount),
      f1: ratio(2 * hits, called + imageCount),
      imageCount,
    };
  });
}

/**
 * The Wilson score interval of a share (Wilson 1927): (p + z^2/2n ± z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n). Unlike the normal
 * approximation it stays in [0, 1] and is right for shares near 1. The default z = 1.959964 gives 95 %.
 */
export function wilsonInterval(hits: number, total: number, z = 1.959963984540054): Interval {
  const share = hits / total;
  const center = share + z ** 2 / (2 * total);
  const spread = z * Math.sqrt((share * (1 - share)) / total + z ** 2 / (4 * total ** 2));
  const scale = 1 + z ** 2 / total;
  return { low: Math.max(0, (center - spread) / scale), high: Math.min(1, (center + spread) / scale) };
}

/** Mean of -ln(probability of the true class), in nats. Probabilities below 1e-15 count as that, so one zero does not make it infinite. */
export function logLoss({ probabilities, labels, classes }: LabelledPredictions): number {
  let sum = 0;
  for (let image = 0; image < labels.length; image++) {
    sum -= Math.log(Math.max(1e-15, at(probabilities, image * classes.length + at(labels, image))));
  }
  return sum / labels.length;
}

/**
 * Expected calibration error (Naeini et al. 2015; Guo et al. 2017, arXiv 1706.04599): images are put into bins of equal width by the
 * largest probability; the error is the mean over images of |accuracy - mean confidence| of their bin. Bins are (low, high].
 */
export function expectedCalibrationError(predictions: LabelledPredictions, binCount = 15): number {
  const { probabilities, labels, classes } = predictions;
  const bins = Array.from({ length: binCount }, () => ({ confidence: 0, hits: 0 }));
  for (const [image, predicted] of predictedClasses(predictions).entries()) {
    const confidence = at(probabilities, image * classes.length + predicted);
    const bin = bins[Math.min(binCount - 1, Math.max(0, Math.ceil(confidence * binCount) - 1))];
    if (bin === undefined) continue;
    bin.confidence += confidence;
    bin.hits += predicted === at(labels, image) ? 1 : 0;
  }
  return bins.reduce((sum, { confidence, hits }) => sum + Math.abs(hits - confidence), 0) / labels.length;
}

function checkPredictions({ probabilities, labels, classes }: LabelledPredictions): void {
  if (labels.length === 0) throw new AppError("DATASET_INVALID", "there are no images to evaluate on");
  if (probabilities.length !== labels.length * classes.length) {
    const message = `${labels.length} images of ${classes.length} classes do not go with ${probabilities.length} probabilities`;
    throw new AppError("DATASET_INVALID", message);
  }
  for (let image = 0; image < labels.length; image++) {
    if (at(labels, image) < classes.length) continue;
    throw new AppError(
      "DATASET_INVALID",
      `image ${image} has label ${at(labels, image)}, there are ${classes.length} classes`,
    );
  }
}

const ratio = (part: number, whole: number): number => (whole === 0 ? 0 : part / whole);

/** An element that is there. */
const at = (values: ArrayLike<number>, index: number): number => values[index] ?? 0;

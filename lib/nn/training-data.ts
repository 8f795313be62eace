/** The images a network is trained on, and the checks before any work is done. */
import { AppError } from "../errors.ts";
import type { TrainingConfig } from "./configuration.ts";
import { checkValidationShare, type DataSplit, heldOutOf, splitTrainingData } from "./data-split.ts";
import type { Normalization } from "./preprocessing.ts";

/** What is known of a training set before its images are read. */
export interface DataOutline extends Normalization {
  /** Names of the classes; a label is an index into them. */
  readonly classes: readonly string[];
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  /** Images of each class, in the order of the classes. */
  readonly classCounts: readonly number[];
}

/** A training set in memory. Both arrays lie on a SharedArrayBuffer, so that the training's thread reads them in place. */
export interface TrainingData extends Omit<DataOutline, "classCounts"> {
  /** The images one after the other, each [C, H, W]. */
  readonly pixels: Uint8Array;
  /** One label an image. */
  readonly labels: Uint16Array;
}

/**
 * Throws DATASET_INVALID or CONFIGURATION_INVALID for data that cannot be trained on with this configuration, whatever its images show: so
 * nothing has to be read to find out.
 */
export function checkOutline(outline: DataOutline, config: TrainingConfig): void {
  const { classes, classCounts } = outline;
  const { validationShare, batchSize } = config;
  const problem = shapeProblem(outline) ?? classProblem(outline);
  if (problem !== undefined) throw unusable(problem);
  checkValidationShare(
    validationShare,
    classCounts.map((images, label) => ({ name: classes[label] ?? "", images })),
  );
  const images = classCounts.reduce((sum, count) => sum + count - heldOutOf(count, validationShare), 0);
  if (batchSize > images) {
    const message = `batchSize ${batchSize} is more than the ${images} images there are to train on; set a smaller batchSize`;
    throw new AppError("CONFIGURATION_INVALID", message, { details: { key: "batchSize" } });
  }
  checkSizes(outline, config);
}

/** How the data is split, or what `checkOutline` throws, or DATASET_INVALID for images and labels that are not what the rest says. */
export function checkTrainingData(data: TrainingData, config: TrainingConfig): DataSplit {
  const { pixels, labels } = data;
  checkOutline({ ...data, classCounts: countClasses(data) }, config);
  const problem = contentProblem(data);
  if (problem !== undefined) throw unusable(problem);
  if (!(pixels.buffer instanceof SharedArrayBuffer) || !(labels.buffer instanceof SharedArrayBuffer)) {
    throw new AppError("INTERNAL", "the training data's pixels and labels must lie on a SharedArrayBuffer");
  }
  return splitTrainingData(data, config);
}

/** Throws CONFIGURATION_INVALID for what does not fit the number of classes or the size of the images. */
function checkSizes({ classes, height, width }: DataOutline, { classWeights, augmentation }: TrainingConfig): void {
  const refuse = (key: string, message: string): never => {
    throw new AppError("CONFIGURATION_INVALID", message, { details: { key } });
  };
  if (typeof classWeights === "object" && classWeights.length !== classes.length) {
    refuse("classWeights", `classWeights has ${classWeights.length} numbers, there are ${classes.length} classes`);
  }
  const limits = { translation: Math.min(height, width) - 1, cutout: Math.min(height, width) } as const;
  for (const key of ["translation", "cutout"] as const) {
    if (augmentation[key] <= limits[key]) continue;
    const message = `augmentation.${key} ${augmentation[key]} is more than images of ${height}x${width} allow`;
    refuse(`augmentation.${key}`, `${message}; set at most ${limits[key]}`);
  }
}

function shapeProblem({ height, width, channels, mean, standardDeviation }: DataOutline): string | undefined {
  for (const [name, value] of Object.entries({ height, width, channels })) {
    if (!Number.isInteger(value) || value < 1) return `${name} is ${value}`;
  }
  if (mean.length !== channels || standardDeviation.length !== channels) {
    return `mean and standardDeviation need one number for each of ${channels} channels`;
  }
  if (!mean.every(Number.isFinite)) return `mean is ${mean.join(", ")}`;
  if (!standardDeviation.every((value) => value > 0 && Number.isFinite(value))) {
    return `standardDeviation is ${standardDeviation.join(", ")}, every one must be positive`;
  }
  return undefined;
}

function classProblem({ classes, classCounts }: DataOutline): string | undefined {
  if (classCounts.every((count) => count === 0)) return "there are no images";
  if (classes.length < 2) return `${classes.length} class, at least 2 are needed`;
  const empty = classCounts.indexOf(0);
  return empty < 0 ? undefined : `class ${classes[empty]} has no image`;
}

function contentProblem({ classes, height, width, channels, pixels, labels }: TrainingData): string | undefined {
  const size = channels * height * width;
  if (pixels.length !== labels.length * size) {
    return `${labels.length} images of ${channels}x${height}x${width} need ${labels.length * size} bytes, there are ${pixels.length}`;
  }
  const stray = labels.findIndex((label) => label >= classes.length);
  return stray < 0 ? undefined : `image ${stray} has label ${labels[stray]}, there are ${classes.length} classes`;
}

/** Labels of no class are left out. */
function countClasses({ classes, labels }: TrainingData): number[] {
  const counts = classes.map(() => 0);
  for (const label of labels) if (label < counts.length) counts[label] = (counts[label] ?? 0) + 1;
  return counts;
}

function unusable(problem: string): AppError {
  return new AppError("DATASET_INVALID", `the training data cannot be used: ${problem}`);
}

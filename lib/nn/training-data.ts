/** The images a network is trained on, and the checks before any work is done. */
import { AppError } from "../errors.ts";
import type { TrainingConfig } from "./configuration.ts";
import { type DataSplit, splitTrainingData } from "./data-split.ts";
import type { Normalization } from "./preprocessing.ts";

/** A training set in memory. Both arrays lie on a SharedArrayBuffer, so that the training's thread reads them in place. */
export interface TrainingData extends Normalization {
  /** Names of the classes; a label is an index into them. */
  readonly classes: readonly string[];
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  /** The images one after the other, each [C, H, W]. */
  readonly pixels: Uint8Array;
  /** One label an image. */
  readonly labels: Uint16Array;
}

/** How the data is split, or DATASET_INVALID or CONFIGURATION_INVALID for data that cannot be trained on with this configuration. */
export function checkTrainingData(data: TrainingData, config: TrainingConfig): DataSplit {
  const { classes, pixels, labels } = data;
  const problem = shapeProblem(data) ?? labelProblem(classes, labels);
  if (problem !== undefined) throw new AppError("DATASET_INVALID", `the training data cannot be used: ${problem}`);
  const split = splitTrainingData(data, config);
  const images = split.training.length;
  if (config.batchSize > images) {
    const message = `batchSize ${config.batchSize} is more than the ${images} images there are to train on; set a smaller batchSize`;
    throw new AppError("CONFIGURATION_INVALID", message, { details: { key: "batchSize" } });
  }
  checkSizes(data, config);
  if (!(pixels.buffer instanceof SharedArrayBuffer) || !(labels.buffer instanceof SharedArrayBuffer)) {
    throw new AppError("INTERNAL", "the training data's pixels and labels must lie on a SharedArrayBuffer");
  }
  return split;
}

/** Throws CONFIGURATION_INVALID for what does not fit the number of classes or the size of the images. */
function checkSizes({ classes, height, width }: TrainingData, { classWeights, augmentation }: TrainingConfig): void {
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

function shapeProblem(data: TrainingData): string | undefined {
  const { height, width, channels, pixels, labels, mean, standardDeviation } = data;
  const lengths = { height, width, channels };
  for (const [name, value] of Object.entries(lengths)) {
    if (!Number.isInteger(value) || value < 1) return `${name} is ${value}`;
  }
  if (labels.length === 0) return "there are no images";
  const size = channels * height * width;
  if (pixels.length !== labels.length * size) {
    return `${labels.length} images of ${channels}x${height}x${width} need ${labels.length * size} bytes, there are ${pixels.length}`;
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

function labelProblem(classes: readonly string[], labels: Uint16Array): string | undefined {
  if (classes.length < 2) return `${classes.length} class, at least 2 are needed`;
  const counts = new Uint32Array(classes.length);
  for (const [index, label] of labels.entries()) {
    if (label >= classes.length) return `image ${index} has label ${label}, there are ${classes.length} classes`;
    counts[label] = (counts[label] ?? 0) + 1;
  }
  const empty = counts.indexOf(0);
  return empty < 0 ? undefined : `class ${classes[empty]} has no image`;
}

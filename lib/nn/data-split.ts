/** Which images are trained on, and which are held out to measure on. */
import { AppError } from "../errors.ts";
import type { TrainingConfig } from "./configuration.ts";
import { createRandom, shuffle } from "./random.ts";
import type { TrainingData } from "./training-data.ts";

/** Indices of images, each part in ascending order. */
export interface DataSplit {
  readonly training: Uint32Array;
  /** Empty where nothing is held out. */
  readonly validation: Uint32Array;
}

/** Separates this draw from those that the batches are made of. */
const splitStream = 0x73706c74;

/**
 * Holds out `validationShare` of each class, rounded, at random by the seed. Throws CONFIGURATION_INVALID for classes of which nothing
 * would be left to train on or to validate on.
 */
export function splitTrainingData(
  { classes, labels }: Pick<TrainingData, "classes" | "labels">,
  { validationShare, seed }: Pick<TrainingConfig, "validationShare" | "seed">,
): DataSplit {
  const heldOut = new Uint8Array(labels.length);
  if (validationShare > 0) {
    const byClass = classes.map((): number[] => []);
    for (const [index, label] of labels.entries()) byClass[label]?.push(index);
    checkValidationShare(
      validationShare,
      byClass.map((indices, label) => ({ name: classes[label] ?? "", images: indices.length })),
    );
    for (const [label, indices] of byClass.entries()) {
      const images = Uint32Array.from(indices);
      shuffle(createRandom(seed, splitStream, label), images);
      for (const index of images.subarray(0, heldOutOf(indices.length, validationShare))) heldOut[index] = 1;
    }
  }
  const all = Uint32Array.from(labels.keys());
  return {
    training: all.filter((index) => heldOut[index] === 0),
    validation: all.filter((index) => heldOut[index] === 1),
  };
}

/** Number of images of a class that are held out. */
export function heldOutOf(images: number, share: number): number {
  return Math.round(share * images);
}

/** A class, for people, and the number of its images. */
export interface ClassSize {
  readonly name: string;
  readonly images: number;
}

/** Throws CONFIGURATION_INVALID naming the classes that a share leaves empty on one side, and the shares that would do. */
export function checkValidationShare(share: number, classes: readonly ClassSize[]): void {
  if (share === 0) return;
  const empty = classes.filter(({ images }) => [0, images].includes(heldOutOf(images, share)));
  if (empty.length === 0) return;
  const use = share < 0.5 ? "to validate on" : "to train on";
  const [first, ...others] = listed(empty);
  const more = others.length > 0 ? `, nor do ${others.join(", ")}` : "";
  const message = `validationShare ${share} of ${first} leaves none ${use}${more}; ${advice(classes)}`;
  throw new AppError("CONFIGURATION_INVALID", message, { details: { key: "validationShare" } });
}

/** `the 3 images of class dog`, `the 1 image of class cat`, and how many classes more. */
function listed(classes: readonly ClassSize[]): string[] {
  const named = classes
    .slice(0, 5)
    .map(({ name, images }) => `the ${images} ${images === 1 ? "image" : "images"} of class ${name}`);
  return classes.length > 5 ? [...named, `${classes.length - 5} more classes`] : named;
}

/** The smallest class decides: share * n rounds to 1 at least from 0.5 / n, and to n - 1 at most below 1 - 0.5 / n. */
function advice(classes: readonly ClassSize[]): string {
  const smallest = Math.min(...classes.map(({ images }) => images));
  if (smallest < 2) return "no share can split a class of one image: add images, or set 0";
  const from = Math.ceil(500 / smallest) / 1000;
  return `set one from ${from} to below ${(1 - from).toFixed(3)}, or 0`;
}

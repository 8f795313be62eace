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
 * Holds out `validationShare` of each class, rounded, at random by the seed. Throws CONFIGURATION_INVALID for a class of which nothing would
 * be left to train on or to validate on.
 */
export function splitTrainingData(
  { classes, labels }: Pick<TrainingData, "classes" | "labels">,
  { validationShare, seed }: Pick<TrainingConfig, "validationShare" | "seed">,
): DataSplit {
  const heldOut = new Uint8Array(labels.length);
  if (validationShare > 0) {
    const byClass = classes.map((): number[] => []);
    for (const [index, label] of labels.entries()) byClass[label]?.push(index);
    for (const [label, indices] of byClass.entries()) {
      const count = Math.round(validationShare * indices.length);
      if (count === 0 || count === indices.length) throw tooSmall(classes[label], indices.length, validationShare);
      const images = Uint32Array.from(indices);
      shuffle(createRandom(seed, splitStream, label), images);
      for (const index of images.subarray(0, count)) heldOut[index] = 1;
    }
  }
  const all = Uint32Array.from(labels.keys());
  return {
    training: all.filter((index) => heldOut[index] === 0),
    validation: all.filter((index) => heldOut[index] === 1),
  };
}

function tooSmall(name: string | undefined, images: number, share: number): AppError {
  const use = Math.round(share * images) === 0 ? "to validate on" : "to train on";
  const message = `validationShare ${share} of the ${images} images of class ${name} leaves none ${use}; set another share, or 0`;
  return new AppError("CONFIGURATION_INVALID", message, { details: { key: "validationShare" } });
}

/** Names of answers. A name says which version answered and what, so that feedback needs no memory of the answer itself. */
import { AppError } from "../../lib/errors.ts";

export interface NamedPrediction {
  /** Number of the version that answered. */
  readonly version: number;
  /** Index of the class that it answered. */
  readonly classIndex: number;
}

/** A new name, such as "3-7-mfk2j3k4a9x8y7z": version 3 answered with class 7. The rest is time and chance. */
export function createPredictionId({ version, classIndex }: NamedPrediction): string {
  const random = Math.floor(Math.random() * 36 ** 8).toString(36);
  return `${version}-${classIndex}-${Date.now().toString(36)}${random.padStart(8, "0")}`;
}

/** INVALID_REQUEST for what is no such name. */
export function parsePredictionId(predictionId: string): NamedPrediction {
  const [, version, classIndex] = /^([1-9]\d{0,9})-(\d{1,9})-[0-9a-z]{9,32}$/.exec(predictionId) ?? [];
  if (version !== undefined) return { version: Number(version), classIndex: Number(classIndex) };
  const text = `"${predictionId}" is no prediction_id; send the one that came with the answer`;
  throw new AppError("INVALID_REQUEST", text, { details: { field: "prediction_id" } });
}

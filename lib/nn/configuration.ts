/** The configuration of a training: every field typed, documented and checked, and an unknown one an error. */
import { z } from "zod";
import { AppError } from "../errors.ts";
import { findNetwork } from "./networks.ts";

const fraction = z.number().min(0).max(1);
const learningRate = z.number().positive();
const weightDecay = z.number().min(0).default(0);

const optimizerSchema = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("sgd"),
    /** The schedule's peak. */
    learningRate,
    /** Default 0.9. */
    momentum: z.number().min(0).lt(1).default(0.9),
    /** Nesterov's momentum rather than the classical. Default true. */
    nesterov: z.boolean().default(true),
    /** Decoupled, multiplied by the learning rate; kernels only. Default 0. */
    weightDecay,
  }),
  z.strictObject({
    kind: z.literal("adam"),
    /** The schedule's peak. */
    learningRate,
    /** Default 0.9. */
    beta1: z.number().min(0).lt(1).default(0.9),
    /** Default 0.999. */
    beta2: z.number().min(0).lt(1).default(0.999),
    /** Default 1e-7, as in TensorFlow. */
    epsilon: z.number().positive().default(1e-7),
    /** Decoupled, multiplied by the learning rate; kernels only. Default 0. */
    weightDecay,
  }),
]);

const scheduleSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("constant") }),
  z.strictObject({
    kind: z.literal("cosine"),
    /** Share of the steps in which the rate rises from 0. Default 0. */
    warmUp: fraction.default(0),
    /** Rate at the end, as a share of the peak. Default 0. */
    final: fraction.default(0),
  }),
  z.strictObject({
    kind: z.literal("one-cycle"),
    /** Share of the steps in which the rate rises. Default 0.25. */
    warmUp: fraction.default(0.25),
    /** Rate at the beginning, as a share of the peak. Default 0.2. */
    initial: fraction.default(0.2),
    /** Rate at the end, as a share of the peak. Default 0.01. */
    final: fraction.default(0.01),
  }),
]);

const trainingConfigSchema = z.strictObject({
  /** Passes over the data. */
  epochs: z.number().int().positive(),
  /** Images a step. The rest of an epoch that fills no batch is left out; each epoch leaves out others. */
  batchSize: z.number().int().positive(),
  /** Seed of the initial weights, the order of images, the augmentation and the dropout. */
  seed: z.number().int().min(0).max(0xffffffff),
  optimizer: optimizerSchema,
  schedule: scheduleSchema,
  /** Share of a target's mass that is spread over all classes. */
  labelSmoothing: fraction.lt(1),
  augmentation: z.strictObject({
    /** Mirror every other image, at random. */
    horizontalFlip: z.boolean(),
    /** Largest shift in pixels, each way, filled by reflection. 0 is none. */
    translation: z.number().int().min(0),
  }),
  /** Threads of ONNX Runtime. 0 leaves the choice to it: one a physical core. Results are reproducible for one number of threads. */
  intraOpThreads: z.number().int().min(0),
});

type DeepReadonly<T> = T extends object ? { readonly [K in keyof T]: DeepReadonly<T[K]> } : T;

/** A complete training configuration. */
export type TrainingConfig = DeepReadonly<z.output<typeof trainingConfigSchema>>;
export type OptimizerConfig = TrainingConfig["optimizer"];
export type ScheduleConfig = TrainingConfig["schedule"];
export type AugmentationConfig = TrainingConfig["augmentation"];

/**
 * The network's defaults with `overrides` put over them, complete and frozen. An `optimizer` or `schedule` of another kind
 * replaces the default's whole. Throws CONFIGURATION_INVALID naming the key, NETWORK_UNKNOWN.
 */
export function resolveTrainingConfig(network: string, overrides: unknown = {}): TrainingConfig {
  const { defaults } = findNetwork(network);
  return parseTrainingConfig(merge(defaults, overrides));
}

/** Checks a configuration that should be complete. Throws CONFIGURATION_INVALID naming the key and the allowed ones. */
export function parseTrainingConfig(value: unknown): TrainingConfig {
  const result = trainingConfigSchema.safeParse(value);
  if (result.success) return deepFreeze(result.data);
  const [issue] = result.error.issues;
  if (issue === undefined) throw new AppError("CONFIGURATION_INVALID", "the training configuration is invalid");
  const path = issue.path.join(".");
  if (issue.code === "unrecognized_keys") {
    const key = [...issue.path, issue.keys[0] ?? ""].join(".");
    const allowed = allowedKeys(value, issue.path);
    throw invalid(key, `training configuration: ${key} is no option; ${path || "it"} takes ${allowed.join(", ")}`);
  }
  throw invalid(path, `training configuration: ${path || "the whole"} is invalid: ${issue.message}`);
}

function invalid(key: string, message: string): AppError {
  return new AppError("CONFIGURATION_INVALID", message, { details: { key } });
}

/** The keys that the schema allows at a path. */
function allowedKeys(value: unknown, path: readonly PropertyKey[]): string[] {
  const [key] = path;
  if (key === undefined) return Object.keys(trainingConfigSchema.shape);
  if (key === "augmentation") return Object.keys(trainingConfigSchema.shape.augmentation.shape);
  const kind =
    isRecord(value) && isRecord(value[String(key)]) ? (value[String(key)] as { kind?: unknown }).kind : undefined;
  const options = key === "optimizer" ? optimizerSchema.options : scheduleSchema.options;
  const shapes = options.map((option): Record<string, unknown> => option.shape);
  const shape = shapes.find(({ kind: literal }) => literal instanceof z.ZodLiteral && literal.value === kind);
  return Object.keys(shape ?? {});
}

function merge(defaults: TrainingConfig, overrides: unknown): unknown {
  if (!isRecord(overrides)) return overrides;
  const merged: Record<string, unknown> = { ...defaults };
  for (const [key, value] of Object.entries(overrides)) {
    if (value === undefined) continue;
    const base = merged[key];
    const sameKind = isRecord(base) && isRecord(value) && (value.kind === undefined || value.kind === base.kind);
    merged[key] = sameKind ? { ...base, ...value } : value;
  }
  return merged;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function deepFreeze<T extends object>(value: T): T {
  for (const child of Object.values(value)) if (isRecord(child)) deepFreeze(child);
  return Object.freeze(value);
}

/** The configuration of a training: every field typed, documented and checked, and an unknown one an error. */
import { z } from "zod";
import { AppError } from "../errors.ts";
import { findNetwork } from "./networks.ts";

const fraction = z.number().min(0).max(1);
const share = fraction.lt(1);

/** What all optimisers have in common. */
const optimizerOptions = {
  /** The schedule's peak. */
  learningRate: z.number().positive(),
  /** Factor of the learning rate of biases and of batch normalisation. Default 1. */
  biasLearningRateFactor: z.number().positive().default(1),
  /** Largest Euclidean norm of all gradients together; larger ones are scaled down to it. Default 0: no limit. */
  gradientClipNorm: z.number().min(0).default(0),
};

/** Decoupled from the gradient and multiplied by the learning rate; kernels only, not biases and batch normalisation. */
const weightDecay = z.number().min(0);

const adamOptions = {
  ...optimizerOptions,
  /** Default 0.9. */
  beta1: share.default(0.9),
  /** Default 0.999. */
  beta2: share.default(0.999),
  /** Default 1e-7, as in TensorFlow. */
  epsilon: z.number().positive().default(1e-7),
};

const optimizerSchema = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("sgd"),
    ...optimizerOptions,
    /** Default 0.9. */
    momentum: share.default(0.9),
    /** Nesterov's momentum rather than the classical. Default true. */
    nesterov: z.boolean().default(true),
    /** Default 0. */
    weightDecay: weightDecay.default(0),
  }),
  z.strictObject({
    kind: z.literal("muon"),
    ...optimizerOptions,
    /** Nesterov's. Default 0.6. */
    momentum: share.default(0.6),
    /** Factor of the learning rate of kernels that are not of convolutions, which SGD updates. Default 1. */
    otherLearningRateFactor: z.number().positive().default(1),
    /** Of those. Default 0. */
    weightDecay: weightDecay.default(0),
  }),
  z.strictObject({ kind: z.literal("adam"), ...adamOptions }),
  z.strictObject({
    kind: z.literal("adamw"),
    ...adamOptions,
    /** Default 0.01. */
    weightDecay: weightDecay.default(0.01),
  }),
]);

const scheduleSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("constant") }),
  z.strictObject({
    kind: z.literal("step"),
    /** Shares of the training after which the rate falls. Default 0.5 and 0.75. */
    at: z.array(fraction).min(1).default([0.5, 0.75]),
    /** What the rate is multiplied by each time. Default 0.1. */
    factor: z.number().positive().lt(1).default(0.1),
  }),
  z.strictObject({
    kind: z.literal("cosine"),
    /** Share of the training in which the rate rises from 0. Default 0. */
    warmUp: fraction.default(0),
    /** Rate at the end, as a share of the peak. Default 0. */
    final: fraction.default(0),
  }),
  z.strictObject({
    kind: z.literal("one-cycle"),
    /** Share of the training in which the rate rises. Default 0.25. */
    warmUp: fraction.default(0.25),
    /** Rate at the beginning, as a share of the peak. Default 0.2. */
    initial: fraction.default(0.2),
    /** Rate at the end, as a share of the peak. Default 0.01. */
    final: fraction.default(0.01),
  }),
]);

const weightAveragingSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("none") }),
  z.strictObject({
    kind: z.literal("ema"),
    /** Share of the average that a step keeps; less in the first steps. Default 0.999. */
    decay: share.default(0.999),
  }),
  z.strictObject({
    kind: z.literal("lookahead"),
    /** Steps between two moves of the slow weights. Default 5. */
    every: z.number().int().positive().default(5),
    /** Share of the way to the fast weights that a move goes at the end of the training; at its beginning all of it. Default 0.25. */
    rate: z.number().positive().max(1).default(0.25),
  }),
]);

const augmentationSchema = z.strictObject({
  /** Mirroring: of a random half of the images, or of the one half in odd epochs and of the other in even ones. Default none. */
  horizontalFlip: z.enum(["none", "random", "alternating"]).default("none"),
  /** Largest shift in pixels, each way, filled by reflection. Default 0. */
  translation: z.number().int().min(0).default(0),
  /** Side in pixels of a square at a random place that is set to the channels' means. Default 0: none. */
  cutout: z.number().int().min(0).default(0),
  /** Largest change of brightness, contrast and saturation, each as a share. Default 0. */
  colorJitter: share.default(0),
  /** Both parameters of the beta distribution from which the share of a second image is drawn. Default 0: none is mixed in. */
  mixup: z.number().min(0).default(0),
});

const trainingConfigSchema = z
  .strictObject({
    /** Passes over the data. */
    epochs: z.number().int().positive(),
    /** Images a step. The rest of an epoch that fills no batch is left out; each epoch leaves out others. */
    batchSize: z.number().int().positive(),
    /** Seed of the initial weights, the order of images, the augmentation and the dropout. Default 1. */
    seed: z.number().int().min(0).max(0xffffffff).default(1),
    optimizer: optimizerSchema,
    schedule: scheduleSchema,
    /** Share of a target's mass that is spread over all classes. Default 0. */
    labelSmoothing: share.default(0),
    /** Factors of the loss by class: "balanced" makes every class count the same, a list gives each class its own. Default "none". */
    classWeights: z
      .union([z.enum(["none", "balanced"]), z.array(z.number().positive())], {
        error: 'expected "none", "balanced" or a list of positive numbers, one for each class',
      })
      .default("none"),
    augmentation: augmentationSchema.prefault({}),
    /** Default none. */
    weightAveraging: weightAveragingSchema.prefault({ kind: "none" }),
    /** Share of the images, of each class alike, that is not trained on but measured after each epoch. Default 0. */
    validationShare: share.default(0),
    /** Which epoch's weights the model gets; the best is that of the highest validation accuracy. Default "last". */
    keep: z.enum(["last", "best"]).default("last"),
    /** Epochs without a better validation accuracy after which the training ends. Default 0: it goes on to the last epoch. */
    patience: z.number().int().min(0).default(0),
    /** Whether the model looks at each image's mirror image as well and takes the mean: more often right, at twice the work. Default false. */
    mirroredInference: z.boolean().default(false),
    /** Minutes after which the training ends, its schedule finished in that time. Default 0: no limit. */
    maxMinutes: z.number().min(0).default(0),
    /** Minutes after which a checkpoint is made within an epoch; one is made after each epoch as well. Default 5, at least 0.01. */
    checkpointMinutes: z.number().min(0.01).default(5),
    /** Threads of ONNX Runtime. 0, the default, leaves the choice to it: one a physical core. Results are reproducible for one number of threads. */
    intraOpThreads: z.number().int().min(0).max(256).default(0),
  })
  .superRefine(({ validationShare, keep, patience }, context) => {
    const message = "needs a validationShare above 0, such as 0.1";
    if (validationShare > 0) return;
    if (keep === "best") context.addIssue({ code: "custom", path: ["keep"], message });
    if (patience > 0) context.addIssue({ code: "custom", path: ["patience"], message });
  });

type DeepReadonly<T> = T extends object ? { readonly [K in keyof T]: DeepReadonly<T[K]> } : T;

/** A complete training configuration. */
export type TrainingConfig = DeepReadonly<z.output<typeof trainingConfigSchema>>;
/** A configuration from which fields that have a default may be missing. */
export type TrainingDefaults = DeepReadonly<z.input<typeof trainingConfigSchema>>;
export type OptimizerConfig = TrainingConfig["optimizer"];
export type ScheduleConfig = TrainingConfig["schedule"];
export type WeightAveragingConfig = TrainingConfig["weightAveraging"];

/**
 * The network's defaults with `overrides` put over them, complete and frozen. An `optimizer` or `schedule` of another kind
 * replaces the default's whole. Throws CONFIGURATION_INVALID naming every key that is wrong, NETWORK_UNKNOWN.
 */
export function resolveTrainingConfig(network: string, overrides: unknown = {}): TrainingConfig {
  const { defaults } = findNetwork(network);
  return parseTrainingConfig(merge(defaults, overrides));
}

/**
 * Checks a configuration that should be complete. Throws CONFIGURATION_INVALID with every problem: the keys and what is allowed. The
 * first key is in the error's details.
 */
export function parseTrainingConfig(value: unknown): TrainingConfig {
  const result = trainingConfigSchema.safeParse(value);
  if (result.success) return deepFreeze(result.data);
  const problems = result.error.issues.map((issue) => problemOf(issue, value));
  const message = `training configuration: ${problems.map(({ text }) => text).join("; ")}`;
  throw new AppError("CONFIGURATION_INVALID", message, { details: { key: problems[0]?.key ?? "" } });
}

interface Problem {
  readonly key: string;
  readonly text: string;
}

/** What is wrong, for people: unknown keys with the known ones, and a missing option with the reason why no default fills it. */
function problemOf(issue: z.core.$ZodIssue, value: unknown): Problem {
  const path = issue.path.join(".");
  if (issue.code === "unrecognized_keys") {
    const keys = issue.keys.map((unknown) => [...issue.path, unknown].join("."));
    const takes = `${path || "it"} takes ${allowedKeys(value, issue.path).join(", ")}`;
    return {
      key: keys[0] ?? path,
      text: `${keys.join(", ")} ${keys.length > 1 ? "are no options" : "is no option"} (${takes})`,
    };
  }
  const [parent, option] = issue.path;
  if (
    parent === "optimizer" &&
    option === "learningRate" &&
    optionOf(value, "optimizer", "learningRate") === undefined
  ) {
    const text = `${path} is missing; an optimizer of another kind than the network's default needs its own, such as 0.001`;
    return { key: path, text };
  }
  // "Invalid input: expected ..." would say twice that it is invalid.
  const expected = issue.message.replace(/^Invalid [a-z ]+[:.] (expected)/i, "expected");
  return { key: path, text: `${path || "the whole"} is invalid: ${expected}` };
}

/** The keys that the schema allows at a path. */
function allowedKeys(value: unknown, path: readonly PropertyKey[]): string[] {
  const [key] = path;
  if (key === undefined) return Object.keys(trainingConfigSchema.shape);
  if (key === "augmentation") return Object.keys(augmentationSchema.shape);
  const kind = optionOf(value, String(key), "kind");
  const unions = { optimizer: optimizerSchema, schedule: scheduleSchema, weightAveraging: weightAveragingSchema };
  const options = unions[key as keyof typeof unions]?.options ?? [];
  const shapes = options.map((option): Record<string, unknown> => option.shape);
  const shape = shapes.find(({ kind: literal }) => literal instanceof z.ZodLiteral && literal.value === kind);
  return Object.keys(shape ?? {});
}

/** A nested option of what somebody has written, if it is there. */
function optionOf(value: unknown, ...path: readonly string[]): unknown {
  return path.reduce((parent, key) => (isRecord(parent) ? parent[key] : undefined), value);
}

function merge(defaults: TrainingDefaults, overrides: unknown): unknown {
  if (!isRecord(overrides)) return overrides;
  const given = Object.entries(overrides).filter(([, value]) => value !== undefined);
  const merged = given.map(([key, value]) => [key, mergeOption(optionOf(defaults, key), value)] as const);
  // Not assigned one by one: a key "__proto__" would set the prototype, and be no unknown key any more.
  return { ...defaults, ...Object.fromEntries(merged) };
}

function mergeOption(base: unknown, value: unknown): unknown {
  const sameKind = isRecord(base) && isRecord(value) && (value.kind === undefined || value.kind === base.kind);
  return sameKind ? { ...base, ...value } : value;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function deepFreeze<T extends object>(value: T): T {
  for (const child of Object.values(value)) if (typeof child === "object" && child !== null) deepFreeze(child);
  return Object.freeze(value);
}

/**
 * Engines run training steps. The loop around them (order of images, augmentation, schedule, checkpoints, cancellation) is the
 * same for all, so an engine only has to do a step and to give its state.
 */
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { AppError } from "../errors.ts";
import type { TrainingConfig } from "./configuration.ts";
import { onnxruntimeEngine } from "./engines/onnxruntime.ts";
import { tensorflowEngine } from "./engines/tensorflow.ts";
import type { Normalization } from "./preprocessing.ts";
import type { MaskInput } from "./training-graph.ts";
import type { StepResult, TrainingBatch } from "./training-session.ts";

export interface TrainingEngine {
  readonly name: string;
  /** Version of the library that does the work. */
  readonly version: string;
  /** Throws ENGINE_UNAVAILABLE, saying what to do, where the engine cannot run. Left out by an engine that always can. */
  check?(): void;
  /** Prepares a network for training, from its initial weights or from a checkpoint's state. */
  createTrainer(options: TrainerOptions): Promise<NetworkTrainer>;
}

export interface TrainerOptions {
  /** The network with its initial weights. It is not changed until `writeWeights`. */
  readonly model: LayersModel;
  readonly config: TrainingConfig;
  readonly normalization: Normalization;
  /** State that an earlier `state()` gave; the engines read each other's. */
  readonly state?: ReadonlyMap<string, Float32Array>;
}

/** A network in training. */
export interface NetworkTrainer {
  /** The dropout masks a batch must bring. */
  readonly masks: readonly MaskInput[];
  /** Trained parameters, running statistics left out. */
  readonly parameterCount: number;
  /** Floating-point operations of one image's forward pass. */
  readonly forwardFlopsPerImage: number;
  /** One step on the calling thread. `position.step` counts from 0. */
  step(batch: TrainingBatch, position: { readonly step: number; readonly learningRate: number }): Promise<StepResult>;
  /** Everything a checkpoint must keep; valid until the next step. */
  state(): ReadonlyMap<string, Float32Array>;
  /** The trained parameters and running statistics by `weightKey`, in the ONNX layout; valid until the next step. */
  weights(): ReadonlyMap<string, Float32Array>;
  /** Goes on from other values of these weights. The optimiser's tensors stay as they are. */
  setWeights(values: ReadonlyMap<string, Float32Array>): void;
  /** Puts weights into the model. Default: the current ones. */
  writeWeights(values?: ReadonlyMap<string, Float32Array>): void;
  release(): Promise<void>;
}

/** The default, on every machine. */
export const defaultEngine = "onnxruntime";

const engines: readonly TrainingEngine[] = [onnxruntimeEngine, tensorflowEngine];

/** The engine of a name. Throws ENGINE_UNAVAILABLE for one that is not there or cannot run here, saying what to do. */
export function findEngine(name: string): TrainingEngine {
  const engine = engines.find((candidate) => candidate.name === name);
  if (engine === undefined) {
    const names = engines.map((candidate) => candidate.name).join(" or ");
    const message = `there is no engine ${name}; set MILLRACE_ENGINE to ${names}`;
    throw new AppError("ENGINE_UNAVAILABLE", message, { details: { engine: name } });
  }
  engine.check?.();
  return engine;
}

/** What trains here, for a model's lineage: the engine's name and version, such as "onnxruntime 1.30.0". */
export function engineVersion(name: string = defaultEngine): string {
  const engine = findEngine(name);
  return `${engine.name} ${engine.version}`;
}

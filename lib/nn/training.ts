/** Training as a job: in a thread of its own, with events on the way, and a way to cancel it. */
import type { Worker } from "node:worker_threads";
import { AppError } from "../errors.ts";
import type { TrainingConfig } from "./configuration.ts";
import { defaultEngine, findEngine } from "./engine.ts";
import { buildNetwork } from "./initial-network.ts";
import type { LayersModelFiles } from "./layers-model.ts";
import { findNetwork } from "./networks.ts";
import { planFromLayersModel } from "./plan.ts";
import { errorFromMessage, startThread } from "./thread.ts";
import { checkOutline, checkTrainingData, type DataOutline, type TrainingData } from "./training-data.ts";
import type { TrainingMessage, TrainingWorkerData } from "./training-worker.ts";

/** An epoch as its steps show it, when it has ended or while it is under way. */
export interface EpochMeasures {
  /** From 1. */
  readonly epoch: number;
  /** Epochs of the whole training, if nothing ends it before. */
  readonly epochs: number;
  /** Mean over the epoch's batches, of augmented images, with L2 penalties. */
  readonly loss: number;
  /** Share of the epoch's augmented images classified right while training, in [0, 1]. */
  readonly accuracy: number;
  /** Of the last step. */
  readonly learningRate: number;
  /** Of the epoch's steps; measurements in between and checkpoints are left out. */
  readonly imagesPerSecond: number;
  /**
   * Estimate for the steps and the validations still to come, as this epoch's steps and the newest validation went; the first one's time is
   * not known before it is over. Checkpoints are left out, and so is an end before the last epoch.
   */
  readonly remainingMs: number;
}

/** What an epoch came to. The last one is shorter than the others where time ran out. */
export interface EpochReport extends EpochMeasures {
  /** Of the epoch's steps; validation and checkpoints are left out. */
  readonly durationMs: number;
  /** Share of the validation images that the weights at the epoch's end, averaged where they are, classify right. Absent without validation. */
  readonly validationAccuracy?: number;
  /** Mean cross-entropy of the validation images, in nats. Absent without validation. */
  readonly validationLoss?: number;
  /** How long it took to measure both. Absent without validation. */
  readonly validationMs?: number;
}

/** Why a training ended. */
export type TrainingEnd = "completed" | "early stopping" | "time budget";

/** What to train, how, and on what. */
export interface TrainingRequest {
  /** Name of a network. */
  readonly network: string;
  readonly config: TrainingConfig;
  readonly data: TrainingData;
  /** Where to go on from: what `onCheckpoint` gave for the same network, configuration and data. */
  readonly checkpoint?: Uint8Array;
  /** Default: onnxruntime. */
  readonly engine?: string;
  readonly pace?: TrainingPace;
}

/** Shortest times between two calls of a listener within an epoch. A test sets 0, which is after every step. */
export interface TrainingPace {
  /** Default 250. */
  readonly progressMs?: number;
  /** Default: the configuration's `checkpointMinutes`. */
  readonly checkpointMs?: number;
}

/** A position within an epoch. */
export interface TrainingProgress extends EpochMeasures {
  /** Steps of this epoch done, and all of them. */
  readonly step: number;
  readonly steps: number;
}

/** Where a checkpoint was made. */
export interface CheckpointPosition {
  /** Epochs done. */
  readonly epochs: number;
  /** Steps of the epoch under way; 0 right after an epoch. */
  readonly steps: number;
}

/** Called on the way; what they throw ends the training. */
export interface TrainingListeners {
  onEpoch?(report: EpochReport): void;
  /** A few times a second, but not more often than there are steps. */
  onProgress?(progress: TrainingProgress): void;
  /** After each epoch and its `onEpoch`, and every `checkpointMinutes` within one. */
  onCheckpoint?(checkpoint: Uint8Array<ArrayBuffer>, position: CheckpointPosition): void;
}

export interface TrainingResult {
  /** The inference model: input `pixels`, outputs `probabilities` and `logits`; describes itself in its metadata. */
  readonly onnx: Uint8Array;
  readonly layersModel: LayersModelFiles;
  readonly config: TrainingConfig;
  readonly epochs: readonly EpochReport[];
  /** Number of the epoch whose weights the model has. */
  readonly keptEpoch: number;
  readonly end: TrainingEnd;
  readonly parameterCount: number;
  /** Convolutions and matrix products, a multiplication and an addition as two. */
  readonly forwardFlopsPerImage: number;
}

export interface TrainingJob {
  /**
   * Settles after every listener call has been made. Rejects with an AppError: CANCELLED, TRAINING_DIVERGED, DATASET_INVALID (images too small for
   * the network), CONFIGURATION_INVALID or ARTIFACT_CORRUPT (checkpoint), INTERNAL and others.
   */
  readonly result: Promise<TrainingResult>;
  /** Makes `result` reject with CANCELLED at once; resolves when the thread has ended, which is after the step it is in. */
  cancel(): Promise<void>;
}

/** A training as it is known before any image is read. */
export interface PlannedTraining extends Pick<TrainingRequest, "network" | "config" | "engine"> {
  readonly data: DataOutline;
}

/**
 * Throws whatever can be told of a training without its images: NETWORK_UNKNOWN, ENGINE_UNAVAILABLE, CONFIGURATION_INVALID, DATASET_INVALID,
 * LAYER_UNSUPPORTED. It builds the network, which takes less than a tenth of a second for ours (a core of an AMD EPYC).
 */
export function checkTraining({ network, config, engine = defaultEngine, data }: PlannedTraining): void {
  findEngine(engine);
  const definition = findNetwork(network);
  checkOutline(data, config);
  const model = buildNetwork(definition, { data, seed: config.seed });
  try {
    planFromLayersModel(model);
  } finally {
    model.dispose();
  }
}

/**
 * Starts a training. Throws at once, before any work, for a network, engine, configuration or data that cannot be: NETWORK_UNKNOWN,
 * ENGINE_UNAVAILABLE, CONFIGURATION_INVALID, DATASET_INVALID. What shows only when the network is built in the thread, images too small for
 * it or a checkpoint that does not fit, rejects the result; the network alone `checkTraining` checks as well.
 */
export function startTraining(request: TrainingRequest, listeners: TrainingListeners = {}): TrainingJob {
  const engine = request.engine ?? defaultEngine;
  findEngine(engine);
  findNetwork(request.network);
  checkTrainingData(request.data, request.config);

  const cancelled = new Int32Array(new SharedArrayBuffer(4));
  const workerData: TrainingWorkerData = { request: { ...request, engine }, cancelled };
  const worker = startThread(new URL("./training-worker.ts", import.meta.url), { workerData });
  const { result, abandon, ended } = follow(worker, cancelled, listeners);
  return {
    result,
    async cancel() {
      Atomics.store(cancelled, 0, 1);
      abandon(new AppError("CANCELLED", "the training was cancelled"));
      // Not terminate(): it cannot interrupt native code either, and tearing a thread down around it may crash the process.
      await ended;
    },
  };
}

/** Passes the thread's messages on to the listeners and settles the result. */
function follow(worker: Worker, cancelled: Int32Array, listeners: TrainingListeners) {
  let abandon: (reason: AppError) => void = () => undefined;
  const result = new Promise<TrainingResult>((resolve, reject) => {
    abandon = reject;
    worker.on("message", (message: TrainingMessage) => {
      // After a cancellation nobody wants to hear of progress.
      if (Atomics.load(cancelled, 0) !== 0) return;
      try {
        deliver(message, listeners, { resolve, reject });
      } catch (thrown) {
        Atomics.store(cancelled, 0, 1);
        reject(AppError.from(thrown));
      }
    });
    worker.on("error", (error) => reject(threadError(`failed: ${AppError.from(error).message}`, error)));
    // Messages come before the exit, so this only has an effect when the thread died without a last word.
    worker.on("exit", (code) => reject(threadError(`died with exit code ${code}`)));
  });
  const ended = new Promise<void>((resolve) => worker.once("exit", () => resolve()));
  return { result, abandon: (reason: AppError) => abandon(reason), ended };
}

function threadError(what: string, cause?: unknown): AppError {
  return new AppError("INTERNAL", `the training thread ${what}; the training can be resumed from its last checkpoint`, {
    cause,
  });
}

function deliver(
  message: TrainingMessage,
  listeners: TrainingListeners,
  outcome: { resolve(result: TrainingResult): void; reject(reason: AppError): void },
): void {
  switch (message.kind) {
    case "epoch":
      listeners.onEpoch?.(message.report);
      break;
    case "progress":
      listeners.onProgress?.(message.progress);
      break;
    case "checkpoint":
      listeners.onCheckpoint?.(message.checkpoint, message.position);
      break;
    case "done":
      outcome.resolve(message.result);
      break;
    case "failed":
      outcome.reject(errorFromMessage(message.error));
      break;
  }
}

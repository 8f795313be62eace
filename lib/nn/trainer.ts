/** The training loop. It reads top to bottom, and blocks its thread for the length of a step: run it in a worker. */
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { AppError } from "../errors.ts";
import { epochBatches } from "./batches.ts";
import {
  type Checkpoint,
  checkResumable,
  type DataSignature,
  decodeCheckpoint,
  encodeCheckpoint,
} from "./checkpoint.ts";
import { defaultEngine, findEngine, type NetworkTrainer } from "./engine.ts";
import { buildInferenceModel } from "./inference-graph.ts";
import { saveLayersModel } from "./layers-model.ts";
import { metadataFromDescription } from "./model-description.ts";
import { findNetwork } from "./networks.ts";
import { planFromLayersModel } from "./plan.ts";
import { createRandom, type Random, randomFromState } from "./random.ts";
import { learningRateAt } from "./schedules.ts";
import type { EpochReport, TrainingListeners, TrainingRequest, TrainingResult } from "./training.ts";
import { checkTrainingData, type TrainingData } from "./training-data.ts";

const progressIntervalMs = 250;

/**
 * Trains on the calling thread. `isCancelled` is asked at the start and before every step; a training that it stops throws CANCELLED. Other
 * errors: DATASET_INVALID and CONFIGURATION_INVALID before any work, TRAINING_DIVERGED, ARTIFACT_CORRUPT (checkpoint).
 */
export async function train(
  request: TrainingRequest,
  listeners: TrainingListeners,
  isCancelled: () => boolean,
): Promise<TrainingResult> {
  const { config, data } = request;
  checkTrainingData(data, config);
  if (isCancelled()) throw new AppError("CANCELLED", "the training was cancelled before it began");
  const checkpoint = request.checkpoint && resume(request, request.checkpoint);
  const model = findNetwork(request.network).build({ ...data, classes: data.classes.length, seed: config.seed });
  const trainer = await findEngine(request.engine ?? defaultEngine).createTrainer({
    model,
    config,
    normalization: data,
    ...(checkpoint && { state: checkpoint.state }),
  });
  try {
    const random = checkpoint ? randomFromState(checkpoint.random) : createRandom(config.seed);
    const epochs = await runEpochs({ request, listeners, isCancelled, trainer, random, checkpoint });
    trainer.writeWeights();
    return await packResult(request, { model, trainer, epochs });
  } finally {
    await trainer.release();
    model.dispose();
  }
}

interface Run {
  readonly request: TrainingRequest;
  readonly listeners: TrainingListeners;
  readonly isCancelled: () => boolean;
  readonly trainer: NetworkTrainer;
  readonly random: Random;
  readonly checkpoint: Checkpoint | undefined;
}

async function runEpochs(run: Run): Promise<EpochReport[]> {
  const { request, listeners, trainer, random, checkpoint } = run;
  const { network, config, data } = request;
  const done = [...(checkpoint?.epochs ?? [])];
  let step = checkpoint?.step ?? 0;
  while (done.length < config.epochs) {
    const report = await runEpoch(run, done, step);
    step += stepsPerEpoch(request);
    done.push(report);
    const snapshot = { network, config, data: signature(data), epochs: done, step, random: random.state() };
    listeners.onEpoch?.(report);
    listeners.onCheckpoint?.(encodeCheckpoint({ ...snapshot, state: trainer.state() }));
  }
  return done;
}

async function runEpoch(run: Run, done: readonly EpochReport[], firstStep: number): Promise<EpochReport> {
  const { request, listeners, isCancelled, trainer, random } = run;
  const { config, data } = request;
  const [epoch, epochs, steps] = [done.length + 1, config.epochs, stepsPerEpoch(request)];
  const started = performance.now();
  let [lossSum, correct, step, reported, learningRate] = [0, 0, 0, started, 0];
  for (const batch of epochBatches({ data, config, masks: trainer.masks, random })) {
    if (isCancelled()) throw new AppError("CANCELLED", `the training was cancelled in epoch ${epoch} of ${epochs}`);
    const position = { step: firstStep + step, steps: steps * epochs, peak: config.optimizer.learningRate };
    learningRate = learningRateAt(config.schedule, position);
    const result = await trainer.step(batch, { step: position.step, learningRate });
    if (!Number.isFinite(result.loss)) throw diverged({ epoch, step: step + 1, loss: result.loss });
    step++;
    lossSum += result.loss;
    correct += result.correct;
    if (performance.now() - reported >= progressIntervalMs) {
      reported = performance.now();
      listeners.onProgress?.({ epoch, epochs, step, steps, loss: lossSum / step });
    }
  }
  const durationMs = performance.now() - started;
  const images = steps * config.batchSize;
  return {
    epoch,
    epochs,
    loss: lossSum / steps,
    accuracy: correct / images,
    learningRate,
    imagesPerSecond: (images / durationMs) * 1000,
    durationMs,
    remainingMs: durationMs * (epochs - epoch),
  };
}

function stepsPerEpoch({ config, data }: TrainingRequest): number {
  return Math.floor(data.labels.length / config.batchSize);
}

function diverged({ epoch, step, loss }: { epoch: number; step: number; loss: number }): AppError {
  const message = `the loss became ${loss} in epoch ${epoch}, step ${step}; train with a smaller learning rate`;
  return new AppError("TRAINING_DIVERGED", message, { details: { epoch: `${epoch}`, step: `${step}` } });
}

function resume({ network, config, data }: TrainingRequest, bytes: Uint8Array): Checkpoint {
  const checkpoint = decodeCheckpoint(bytes);
  checkResumable(checkpoint, { network, config, data: signature(data) });
  return checkpoint;
}

function signature({ classes, channels, height, width, labels }: TrainingData): DataSignature {
  return { classes, channels, height, width, images: labels.length };
}

async function packResult(
  { network, config, data }: TrainingRequest,
  { model, trainer, epochs }: { model: LayersModel; trainer: NetworkTrainer; epochs: readonly EpochReport[] },
): Promise<TrainingResult> {
  const { parameterCount, forwardFlopsPerImage } = trainer;
  const { classes, channels, height, width, mean, standardDeviation } = data;
  const input = { channels, height, width, mean, standardDeviation };
  const metadata = metadataFromDescription({ network, classes, input, parameterCount, forwardFlopsPerImage });
  const onnx = buildInferenceModel(planFromLayersModel(model), {
    mean,
    standardDeviation,
    metadata: { ...metadata, "millrace.training_config": JSON.stringify(config) },
  });
  return { onnx, layersModel: await saveLayersModel(model), config, epochs, parameterCount, forwardFlopsPerImage };
}

/** The training loop. It reads top to bottom, and blocks its thread for the length of a step: run it in a worker. */
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { AppError } from "../errors.ts";
import {
  type Checkpoint,
  checkResumable,
  checkTensors,
  type DataSignature,
  decodeCheckpoint,
  encodeCheckpoint,
} from "./checkpoint.ts";
import { type DataSplit, splitTrainingData } from "./data-split.ts";
import { checkConvergence, checkLoss, checkTensorsFinite, lossOfGuessing } from "./divergence.ts";
import { defaultEngine, findEngine, type NetworkTrainer } from "./engine.ts";
import { addStep, bestEpoch, measureEpoch, noSums, trainingEnd } from "./epochs.ts";
import { buildInferenceModel } from "./inference-graph.ts";
import { buildInitialNetwork } from "./initial-network.ts";
import { saveLayersModel } from "./layers-model.ts";
import { startLoader } from "./loader.ts";
import { metadataFromDescription } from "./model-description.ts";
import { findNetwork } from "./networks.ts";
import { planFromLayersModel } from "./plan.ts";
import { learningRateAt, progressAt } from "./schedules.ts";
import type { EpochReport, TrainingListeners, TrainingRequest, TrainingResult } from "./training.ts";
import { checkTrainingData, type TrainingData } from "./training-data.ts";
import { validate } from "./validation.ts";
import { copyOf, createWeightAveraging } from "./weight-averaging.ts";

const beginning = { step: 0, sums: noSums };

/**
 * Trains on the calling thread. `isCancelled` is asked at the start and before every step; a training that it stops throws CANCELLED. Other
 * errors: DATASET_INVALID and CONFIGURATION_INVALID before any work, TRAINING_DIVERGED, ARTIFACT_CORRUPT (checkpoint).
 */
export async function train(
  request: TrainingRequest,
  listeners: TrainingListeners,
  isCancelled: () => boolean,
): Promise<TrainingResult> {
  const startedMs = performance.now();
  const { network, config, data } = request;
  const throwIfCancelled = (): void => {
    if (isCancelled()) throw new AppError("CANCELLED", "the training was cancelled");
  };
  checkTrainingData(data, config);
  throwIfCancelled();
  const checkpoint = request.checkpoint && resume(request, request.checkpoint);
  const images = splitTrainingData(data, config);
  const model = buildInitialNetwork(findNetwork(network), { data, images: images.training, seed: config.seed });
  const trainer = await findEngine(request.engine ?? defaultEngine).createTrainer({
    model,
    config,
    normalization: data,
    ...(checkpoint && { state: checkpoint.tensors.state }),
  });
  try {
    if (checkpoint) checkTensors(checkpoint, trainer);
    const run = { request, listeners, throwIfCancelled, checkpoint, images, model, trainer, startedMs };
    const { weights, ...outcome } = await runEpochs(run);
    trainer.writeWeights(weights);
    return await packResult(request, { model, trainer, ...outcome });
  } finally {
    await trainer.release();
    model.dispose();
  }
}

interface Run {
  readonly request: TrainingRequest;
  readonly listeners: TrainingListeners;
  readonly throwIfCancelled: () => void;
  readonly checkpoint: Checkpoint | undefined;
  readonly images: DataSplit;
  readonly model: LayersModel;
  readonly trainer: NetworkTrainer;
  /** Of this process's part of the training, on the clock of `performance`. */
  readonly startedMs: number;
}

interface Outcome extends Pick<TrainingResult, "epochs" | "end" | "keptEpoch"> {
  /** Those that the model gets. */
  readonly weights: ReadonlyMap<string, Float32Array>;
}

async function runEpochs(run: Run): Promise<Outcome> {
  const { request, listeners, throwIfCancelled, checkpoint, images, model, trainer } = run;
  const { network, config, data } = request;
  const { batchSize, maxMinutes, checkpointMinutes } = config;
  const { progressMs = 250, checkpointMs = 60_000 * checkpointMinutes } = request.pace ?? {};
  const stepsPerEpoch = Math.floor(images.training.length / batchSize);
  const steps = config.epochs * stepsPerEpoch;
  const guessing = lossOfGuessing(planFromLayersModel(model), { data, config, images: images.training });

  // Where the training is: at its beginning, or where the checkpoint was made.
  const epochs = [...(checkpoint?.epochs ?? [])];
  let { step, sums } = checkpoint ?? beginning;
  let best = checkpoint?.tensors.best ?? new Map<string, Float32Array>();
  const averaging = createWeightAveraging(config.weightAveraging, trainer, checkpoint?.tensors.average);
  let [savedMs, toldMs, learningRate] = [performance.now(), performance.now(), 0];

  const elapsedMs = () => (checkpoint?.elapsedMs ?? 0) + performance.now() - run.startedMs;
  const progressOf = (elapsedMs: number) => progressAt({ step, steps, elapsedMs, maxMinutes });
  const measures = () => {
    const leftMs = maxMinutes === 0 ? Number.POSITIVE_INFINITY : 60_000 * maxMinutes - elapsedMs();
    return measureEpoch(sums, { config, epoch: epochs.length + 1, learningRate, stepsLeft: steps - step, leftMs });
  };
  const checkHealth = () => {
    const place = { epoch: epochs.length + 1, step: sums.steps };
    if (sums.steps === stepsPerEpoch)
      checkConvergence({ meanLoss: sums.loss / sums.steps, guessing, steps: step }, place);
    checkTensorsFinite(trainer.state(), place);
  };
  const save = () => {
    const position = { network, config, data: signature(data), epochs, step, elapsedMs: elapsedMs(), sums };
    const tensors = { state: trainer.state(), average: averaging.state(), best };
    const file = encodeCheckpoint({ ...position, tensors });
    listeners.onCheckpoint?.(file, { epochs: epochs.length, steps: sums.steps });
    savedMs = performance.now();
    return progressOf(position.elapsedMs);
  };

  const loader = startLoader({ data, config, masks: trainer.masks, images: images.training, firstStep: step, steps });
  try {
    // The wait for the loader's thread says nothing about the rate of the steps.
    await loader.ready();
    let progress = progressOf(elapsedMs());
    for (;;) {
      const position = { epochs, step, steps, progress };
      const end = sums.steps === 0 ? trainingEnd(config.patience, position) : undefined;
      if (end !== undefined) {
        const keepsBest = config.keep === "best";
        const keptEpoch = keepsBest ? bestEpoch(epochs) : epochs.length;
        return { epochs, end, keptEpoch, weights: keepsBest ? best : averaging.weights() };
      }

      do {
        throwIfCancelled();
        const stepStartedMs = performance.now();
        const { schedule, optimizer } = config;
        learningRate = learningRateAt(schedule, { progress, stepShare: 1 / steps, peak: optimizer.learningRate });
        const { loss, correct } = await trainer.step(await loader.next(), { step, learningRate });
        checkLoss(loss, { epoch: epochs.length + 1, step: sums.steps + 1 });
        step++;
        progress = progressOf(elapsedMs());
        averaging.update({ step: step - 1, progress });
        sums = addStep(sums, { loss, correct, durationMs: performance.now() - stepStartedMs });
        if (performance.now() - toldMs >= progressMs) {
          listeners.onProgress?.({ ...measures(), step: sums.steps, steps: stepsPerEpoch });
          toldMs = performance.now();
        }
        if (step % stepsPerEpoch !== 0 && performance.now() - savedMs >= checkpointMs) {
          checkHealth();
          save();
        }
      } while (step % stepsPerEpoch !== 0 && progress < 1);

      checkHealth();
      let report: EpochReport = { ...measures(), durationMs: sums.durationMs };
      if (images.validation.length > 0) {
        trainer.writeWeights(averaging.weights());
        const options = { data, images: images.validation, config, throwIfCancelled };
        const { accuracy, loss } = await validate(model, options);
        checkLoss(loss, { epoch: report.epoch, step: sums.steps }, "validation loss");
        report = { ...report, validationAccuracy: accuracy, validationLoss: loss };
      }
      epochs.push(report);
      sums = noSums;
      if (config.keep === "best" && bestEpoch(epochs) === report.epoch) best = copyOf(averaging.weights());
      listeners.onEpoch?.(report);
      // By the time that the checkpoint says, so that the training ends here exactly if one that goes on from the checkpoint ends, too.
      progress = save();
    }
  } finally {
    await loader.close();
  }
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
  { model, trainer, ...outcome }: { model: LayersModel; trainer: NetworkTrainer } & Omit<Outcome, "weights">,
): Promise<TrainingResult> {
  const { parameterCount, forwardFlopsPerImage } = trainer;
  const { classes, channels, height, width, mean, standardDeviation } = data;
  const input = { channels, height, width, mean, standardDeviation };
  const mirrored = config.mirroredInference;
  const metadata = metadataFromDescription({ network, classes, input, parameterCount, forwardFlopsPerImage, mirrored });
  const onnx = buildInferenceModel(planFromLayersModel(model), {
    mean,
    standardDeviation,
    mirrored,
    metadata: { ...metadata, "millrace.training_config": JSON.stringify(config) },
  });
  return { ...outcome, onnx, layersModel: await saveLayersModel(model), config, parameterCount, forwardFlopsPerImage };
}

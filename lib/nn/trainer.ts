/** The training loop. It reads top to bottom, and blocks its thread for the length of a step: run it in a worker. */
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { AppError } from "../errors.ts";
import { stepsPerEpochOf } from "./batches.ts";
import {
  type Checkpoint,
  checkResumable,
  checkTensors,
  type DataSignature,
  decodeCheckpoint,
  encodeCheckpoint,
} from "./checkpoint.ts";
import type { DataSplit } from "./data-split.ts";
import { checkConvergence, checkLoss, checkPartOfEpoch, checkTensorsFinite, lossOfGuessing } from "./divergence.ts";
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
import { copyOf, createWeightAveraging, type WeightAveraging } from "./weight-averaging.ts";

/**
 * Trains on the calling thread. `isCancelled` is asked at the start and before every step; a training that it stops throws CANCELLED. Other
 * errors: DATASET_INVALID and CONFIGURATION_INVALID before the first step, TRAINING_DIVERGED, ARTIFACT_CORRUPT (checkpoint).
 */
export function train(
  request: TrainingRequest,
  listeners: TrainingListeners,
  isCancelled: () => boolean,
): Promise<TrainingResult> {
  // In two parts: a checkpoint is as large as the network with its optimiser, and the second part does not hold it.
  return prepare(request, listeners, isCancelled).then(finish);
}

type Order = Omit<TrainingRequest, "checkpoint">;

interface Run {
  readonly request: Order;
  readonly listeners: TrainingListeners;
  readonly throwIfCancelled: () => void;
  readonly images: DataSplit;
  readonly model: LayersModel;
  readonly trainer: NetworkTrainer;
  readonly averaging: WeightAveraging;
  /** Where it begins: anew, or where the checkpoint was made. */
  readonly start: Start;
  /** On the clock of `performance`, earlier by the time that was spent before the checkpoint. */
  readonly startedMs: number;
}

interface Start extends Pick<Checkpoint, "epochs" | "step" | "sums"> {
  readonly best: ReadonlyMap<string, Float32Array>;
}

async function prepare(
  { checkpoint: file, ...request }: TrainingRequest,
  listeners: TrainingListeners,
  isCancelled: () => boolean,
): Promise<Run> {
  const nowMs = performance.now();
  const { network, config, data } = request;
  const throwIfCancelled = (): void => {
    if (isCancelled()) throw new AppError("CANCELLED", "the training was cancelled");
  };
  const images = checkTrainingData(data, config);
  throwIfCancelled();
  const checkpoint = file && resume(request, file);
  const model = buildInitialNetwork(findNetwork(network), { data, images: images.training, seed: config.seed });
  let trainer: NetworkTrainer | undefined;
  try {
    trainer = await findEngine(request.engine ?? defaultEngine).createTrainer({
      model,
      config,
      normalization: data,
      ...(checkpoint && { state: checkpoint.tensors.state }),
    });
    if (checkpoint) checkTensors(checkpoint, trainer);
    const averaging = createWeightAveraging(config.weightAveraging, trainer, checkpoint?.tensors.average);
    const startedMs = nowMs - (checkpoint?.elapsedMs ?? 0);
    const start = startFrom(checkpoint);
    return { request, listeners, throwIfCancelled, images, model, trainer, averaging, start, startedMs };
  } catch (thrown) {
    await trainer?.release();
    model.dispose();
    throw thrown;
  }
}

function startFrom(checkpoint: Checkpoint | undefined): Start {
  if (checkpoint === undefined) return { epochs: [], step: 0, sums: noSums, best: new Map() };
  const { epochs, step, sums, tensors } = checkpoint;
  return { epochs, step, sums, best: tensors.best };
}

async function finish(run: Run): Promise<TrainingResult> {
  const { request, model, trainer } = run;
  try {
    const { weights, ...outcome } = await runEpochs(run);
    trainer.writeWeights(weights);
    return await packResult(request, { model, trainer, ...outcome });
  } finally {
    await trainer.release();
    model.dispose();
  }
}

type ValidationReport = Pick<Required<EpochReport>, "validationAccuracy" | "validationLoss" | "validationMs">;

interface Outcome extends Pick<TrainingResult, "epochs" | "end" | "keptEpoch"> {
  /** Those that the model gets. */
  readonly weights: ReadonlyMap<string, Float32Array>;
}

async function runEpochs(run: Run): Promise<Outcome> {
  const { request, listeners, throwIfCancelled, images, model, trainer, averaging, start } = run;
  const { network, config, data } = request;
  const { maxMinutes, checkpointMinutes } = config;
  const { progressMs = 250, checkpointMs = 60_000 * checkpointMinutes } = request.pace ?? {};
  const stepsPerEpoch = stepsPerEpochOf(images.training, config);
  const steps = config.epochs * stepsPerEpoch;
  const guessing = lossOfGuessing(planFromLayersModel(model), { data, config, images: images.training });

  // Where the training is.
  const epochs = [...start.epochs];
  let { step, sums, best } = start;
  let [savedMs, toldMs, learningRate, lastLoss] = [performance.now(), performance.now(), 0, 0];

  const elapsedMs = () => performance.now() - run.startedMs;
  const progressOf = (elapsedMs: number) => progressAt({ step, steps, elapsedMs, maxMinutes });
  const measures = (validation?: ValidationReport) => {
    const leftMs = maxMinutes === 0 ? Number.POSITIVE_INFINITY : 60_000 * maxMinutes - elapsedMs();
    const epoch = epochs.length + 1;
    const validationsLeft = config.epochs - epoch + (validation === undefined ? 1 : 0);
    const { validationMs = 0 } = validation ?? epochs.at(-1) ?? {};
    const position = { config, epoch, learningRate, stepsLeft: steps - step, validationsLeft, validationMs, leftMs };
    return measureEpoch(sums, position);
  };
  const checkHealth = () => {
    const place = { epoch: epochs.length + 1, step: sums.steps };
    const meanLoss = sums.loss / sums.steps;
    if (sums.steps === stepsPerEpoch) checkConvergence({ meanLoss, guessing: guessing.mean, steps: step }, place);
    else checkPartOfEpoch({ meanLoss, lastLoss, guessing: guessing.heaviest, steps: sums.steps }, place);
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
        lastLoss = loss;
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
      let validation: ValidationReport | undefined;
      if (images.validation.length > 0) {
        const startedMs = performance.now();
        trainer.writeWeights(averaging.weights());
        const options = { data, images: images.validation, config, throwIfCancelled };
        const { accuracy, loss } = await validate(model, options);
        checkLoss(loss, { epoch: epochs.length + 1, step: sums.steps }, "validation loss");
        const validationMs = performance.now() - startedMs;
        validation = { validationAccuracy: accuracy, validationLoss: loss, validationMs };
      }
      const report: EpochReport = { ...measures(validation), durationMs: sums.durationMs, ...validation };
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

function resume({ network, config, data }: Order, bytes: Uint8Array): Checkpoint {
  const checkpoint = decodeCheckpoint(bytes);
  checkResumable(checkpoint, { network, config, data: signature(data) });
  return checkpoint;
}

function signature({ classes, channels, height, width, labels }: TrainingData): DataSignature {
  return { classes, channels, height, width, images: labels.length };
}

async function packResult(
  { network, config, data }: Order,
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

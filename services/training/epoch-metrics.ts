import { create } from "@bufbuild/protobuf";
import { context, type Span } from "@opentelemetry/api";
import {
  type EpochMetrics,
  EpochMetricsSchema,
  TrainingEnd,
  type TrainingProgress,
  TrainingProgressSchema,
} from "../../gen/millrace/v1/training_pb.ts";
import type * as nn from "../../lib/nn/training.ts";
import { recordMetric } from "../../lib/telemetry/metrics.ts";
import { startSpan } from "../../lib/telemetry/spans.ts";

/** An epoch in the words of the API. */
export function epochMetricsFrom(epoch: nn.EpochReport): EpochMetrics {
  const { validationAccuracy, validationLoss } = epoch;
  return create(EpochMetricsSchema, {
    ...measuresFrom(epoch),
    durationSeconds: epoch.durationMs / 1000,
    ...(validationAccuracy === undefined ? {} : { validationAccuracy }),
    ...(validationLoss === undefined ? {} : { validationLoss }),
  });
}

/** A position within an epoch in the words of the API. */
export function progressFrom(progress: nn.TrainingProgress): TrainingProgress {
  const { step, steps } = progress;
  return create(TrainingProgressSchema, { epoch: measuresFrom(progress), step, steps });
}

function measuresFrom(measures: nn.EpochMeasures) {
  const { epoch, epochs, loss, accuracy, learningRate, imagesPerSecond, remainingMs } = measures;
  return { epoch, epochs, loss, accuracy, learningRate, imagesPerSecond, remainingSeconds: remainingMs / 1000 };
}

/** Where a training stands, as metrics. Also at the end of an epoch, which alone has a validation accuracy. */
export function recordTraining(network: string, measures: nn.EpochMeasures & { validationAccuracy?: number }): void {
  const { imagesPerSecond, epoch, loss, accuracy, validationAccuracy } = measures;
  const attributes = { "millrace.network.name": network };
  recordMetric("millrace.training.throughput", imagesPerSecond, attributes);
  recordMetric("millrace.training.epoch", epoch, attributes);
  recordMetric("millrace.training.loss", loss, attributes);
  recordMetric("millrace.training.accuracy", accuracy, attributes);
  if (validationAccuracy === undefined) return;
  recordMetric("millrace.training.validation_accuracy", validationAccuracy, attributes);
}

/** A training has ended, however it did. What it has come to stays to be seen. */
export function recordTrainingEnd(network: string): void {
  recordMetric("millrace.training.throughput", 0, { "millrace.network.name": network });
}

/** Why a training ended, in the words of the API. */
export const trainingEnds: Readonly<Record<nn.TrainingEnd, TrainingEnd>> = {
  completed: TrainingEnd.COMPLETED,
  "early stopping": TrainingEnd.EARLY_STOPPING,
  "time budget": TrainingEnd.TIME_BUDGET,
};

/** A span for each epoch: a long training shows in the trace while it runs, since a span appears only when it ends. */
export interface EpochSpans {
  /** The epoch under way has shown a sign of life, with so many milliseconds of it past. */
  begin(pastMs: number): void;
  /** Ends the span of an epoch. */
  end(metrics: EpochMetrics): void;
  /** Ends what is open. */
  dispose(): void;
}

/**
 * Spans under the one that is active now. Each begins where the one before has ended, if there is such an epoch at all; what is before
 * the first step of all is a span "build network".
 */
export function createEpochSpans(): EpochSpans {
  const parent = context.active();
  const createdMs = Date.now();
  let startTimeMs: number | undefined;
  let open: Span | undefined;
  const begun = (pastMs: number): Span => {
    if (startTimeMs === undefined) {
      // An epoch that is gone on with from a checkpoint has a past before this training.
      startTimeMs = Math.max(createdMs, Date.now() - pastMs);
      startSpan("build network", { parent, startTimeMs: createdMs }).end(startTimeMs);
    }
    open ??= startSpan("epoch", { parent, startTimeMs });
    return open;
  };
  return {
    begin: (pastMs) => void begun(pastMs),
    end(metrics) {
      const span = begun(metrics.durationSeconds * 1000).setAttributes({
        "millrace.training.epoch": metrics.epoch,
        "millrace.training.loss": metrics.loss,
        "millrace.training.accuracy": metrics.accuracy,
        "millrace.training.images_per_second": metrics.imagesPerSecond,
        "millrace.training.validation_accuracy": metrics.validationAccuracy,
      });
      span.end();
      open = undefined;
      startTimeMs = Date.now();
    },
    dispose: () => open?.end(),
  };
}

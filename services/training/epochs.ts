import { create } from "@bufbuild/protobuf";
import type { Span } from "@opentelemetry/api";
import { type EpochMetrics, EpochMetricsSchema } from "../../gen/millrace/v1/training_pb.ts";
import type { EpochReport } from "../../lib/nn/training.ts";
import { startSpan } from "../../lib/telemetry/spans.ts";

/** An epoch in the words of the API. */
export function epochMetricsFrom(epoch: EpochReport): EpochMetrics {
  return create(EpochMetricsSchema, {
    epoch: epoch.epoch,
    epochs: epoch.epochs,
    loss: epoch.loss,
    accuracy: epoch.accuracy,
    learningRate: epoch.learningRate,
    imagesPerSecond: epoch.imagesPerSecond,
    durationSeconds: epoch.durationMs / 1000,
    remainingSeconds: epoch.remainingMs / 1000,
  });
}

/** A span for each epoch: a long training shows in the trace while it runs, since a span appears only when it ends. */
export interface EpochSpans {
  /** Ends the span of an epoch and begins the next one's. */
  end(metrics: EpochMetrics): void;
  /** Ends what is open. */
  dispose(): void;
}

export function createEpochSpans(): EpochSpans {
  let span: Span | undefined = startSpan("epoch");
  return {
    end: (metrics) => {
      span?.setAttributes({
        "millrace.training.epoch": metrics.epoch,
        "millrace.training.loss": metrics.loss,
        "millrace.training.accuracy": metrics.accuracy,
        "millrace.training.images_per_second": metrics.imagesPerSecond,
      });
      span?.end();
      span = metrics.epoch < metrics.epochs ? startSpan("epoch") : undefined;
    },
    dispose: () => span?.end(),
  };
}

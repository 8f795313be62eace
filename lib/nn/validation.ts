/** Measuring a network, while it is trained, on images that it is not trained on. */
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { InferenceSession, Tensor } from "onnxruntime-node";
import type { TrainingConfig } from "./configuration.ts";
import { buildInferenceModel } from "./inference-graph.ts";
import { evaluatePredictions } from "./metrics.ts";
import { planFromLayersModel } from "./plan.ts";
import type { TrainingData } from "./training-data.ts";

/** How good a network is on the validation images. */
export interface ValidationResult {
  /** Share classified right, in [0, 1]. */
  readonly accuracy: number;
  /** Mean cross-entropy in nats, without label smoothing and penalties. */
  readonly loss: number;
}

export interface ValidationOptions {
  readonly data: TrainingData;
  /** Which of them to measure on. At least one. */
  readonly images: Uint32Array;
  readonly config: Pick<TrainingConfig, "intraOpThreads" | "mirroredInference">;
  /** Called before each batch; what it throws ends the measurement. */
  readonly throwIfCancelled: () => void;
}

const batchSize = 250;

/** Measures a model as it will be served: compiled to the inference graph, on images as they are. */
export async function validate(model: LayersModel, options: ValidationOptions): Promise<ValidationResult> {
  const { data, images, config, throwIfCancelled } = options;
  const onnx = buildInferenceModel(planFromLayersModel(model), { ...data, mirrored: config.mirroredInference });
  const session = await InferenceSession.create(onnx, {
    intraOpNumThreads: config.intraOpThreads,
    logSeverityLevel: 3,
  });
  const probabilities = new Float32Array(images.length * data.classes.length);
  try {
    for (let start = 0; start < images.length; start += batchSize) {
      throwIfCancelled();
      const pixels = pixelsOf(data, images.subarray(start, start + batchSize));
      const output = await session.run({ pixels }, ["probabilities"]);
      probabilities.set(output.probabilities?.data as Float32Array, start * data.classes.length);
    }
  } finally {
    await session.release();
  }
  const labels = Array.from(images, (index) => data.labels[index] ?? 0);
  const { accuracy, logLoss } = evaluatePredictions({ probabilities, labels, classes: data.classes });
  return { accuracy, loss: logLoss };
}

function pixelsOf({ channels, height, width, pixels }: TrainingData, images: Uint32Array): Tensor {
  const size = channels * height * width;
  const batch = new Uint8Array(images.length * size);
  for (const [slot, index] of images.entries())
    batch.set(pixels.subarray(index * size, (index + 1) * size), slot * size);
  return new Tensor("uint8", batch, [images.length, channels, height, width]);
}

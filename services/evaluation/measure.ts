import { create } from "@bufbuild/protobuf";
import type { DatasetManifest } from "../../gen/millrace/v1/dataset_pb.ts";
import {
  type EvaluationReport,
  EvaluationReportSchema,
  type ParityReport,
  ParityReportSchema,
} from "../../gen/millrace/v1/evaluation_pb.ts";
import type { ModelManifest } from "../../gen/millrace/v1/model_pb.ts";
import { readBytes } from "../../lib/artifacts/read.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import { AppError } from "../../lib/errors.ts";
import { type LoadedSplit, loadSplit } from "../../lib/images/load-split.ts";
import { createInferenceWorker, type InferenceWorker } from "../../lib/nn/inference.ts";
import { evaluatePredictions } from "../../lib/nn/metrics.ts";
import type { ModelDescription } from "../../lib/nn/model-description.ts";
import { parityImageCount, predictInThread } from "../../lib/nn/parity-thread.ts";
import { withSpan } from "../../lib/telemetry/spans.ts";

export interface MeasureOptions {
  readonly artifacts: ArtifactStore;
  readonly onProgress: (done: number, total: number) => void;
  readonly signal: AbortSignal;
}

/** Images that the network classifies at a time: large enough for full speed, small enough to be cancelled quickly. */
const batchSize = 250;

/** Measures a model on a data set's test split. DATASET_INVALID if the model was made for other images or classes. */
export async function measure(
  model: ModelManifest,
  dataset: Measured,
  options: MeasureOptions,
): Promise<EvaluationReport> {
  requireFit(model, dataset);
  const { artifacts, signal } = options;
  const test = await loadSplit(dataset.manifest, "test", { artifacts, signal });
  await using worker = await withSpan("load model", {}, async () =>
    createInferenceWorker({ onnx: await readBytes(artifacts, model.onnx?.digest ?? "") }),
  );
  const startedMs = performance.now();
  const probabilities = await classifyAll(worker, test, model.classes.length, options);
  const seconds = (performance.now() - startedMs) / 1000;
  const quality = evaluatePredictions({ probabilities, labels: test.labels, classes: model.classes });
  return create(EvaluationReportSchema, {
    datasetDigest: dataset.digest,
    imageCount: test.count,
    ...quality,
    classes: [...quality.classes],
    confusionMatrix: [...quality.confusionMatrix],
    imagesPerSecond: test.count / seconds,
    parity: await compareEngines(model, test, probabilities, {
      ...options,
      description: worker.description,
    }),
  });
}

/** A data set with its digest. */
export interface Measured {
  readonly digest: string;
  readonly manifest: DatasetManifest;
}

/** Whether a model can be measured on a data set: it knows images of this shape and the same classes in the same order. */
export function fits(model: ModelManifest, { manifest }: Measured): boolean {
  const { input } = model;
  const { shape } = manifest;
  const sameShape =
    input?.height === shape?.height && input?.width === shape?.width && input?.channels === shape?.channels;
  return sameShape && model.classes.join("\n") === manifest.classes.join("\n");
}

function requireFit(model: ModelManifest, dataset: Measured): void {
  if (fits(model, dataset)) return;
  const [known, found] = differences(model, dataset);
  throw new AppError(
    "DATASET_INVALID",
    `the model knows ${known}, but data set ${dataset.digest} has ${found}; choose a data set of the same kind`,
    { details: { dataset: dataset.digest } },
  );
}

/** What a model knows and what a data set has, as far as the two are not the same: the images, or else the first class that differs. */
function differences({ input, classes }: ModelManifest, { manifest }: Measured): readonly [string, string] {
  const images = [describeImages(input), describeImages(manifest.shape)] as const;
  if (images[0] !== images[1]) return images;
  const longer = classes.length < manifest.classes.length ? manifest.classes : classes;
  const index = longer.findIndex((_, index) => classes[index] !== manifest.classes[index]);
  return [describeClasses(classes, index), describeClasses(manifest.classes, index)];
}

function describeImages(shape: ModelManifest["input"]): string {
  return `images of ${shape?.width} x ${shape?.height} x ${shape?.channels}`;
}

/** With the class at an index, if there is one. */
function describeClasses(classes: readonly string[], index: number): string {
  const name = classes[index];
  return `${classes.length} classes${name === undefined ? "" : `, of which number ${index + 1} is ${name}`}`;
}

async function classifyAll(
  worker: InferenceWorker,
  { pixels, count }: LoadedSplit,
  classCount: number,
  { onProgress, signal }: MeasureOptions,
): Promise<Float32Array> {
  const imageBytes = pixels.length / count;
  const all = new Float32Array(count * classCount);
  for (let start = 0; start < count; start += batchSize) {
    signal.throwIfAborted();
    const n = Math.min(batchSize, count - start);
    const batch = pixels.subarray(start * imageBytes, (start + n) * imageBytes);
    const attributes = { "millrace.images.count": n };
    const { probabilities } = await withSpan("classify batch", { attributes }, () => worker.run(batch, n));
    all.set(probabilities, start * classCount);
    onProgress(start + n, count);
  }
  return all;
}

/** How far the two engines are apart on the same weights: an error of the compiler would show here. */
async function compareEngines(
  model: ModelManifest,
  { pixels, count: all }: LoadedSplit,
  probabilities: Float32Array,
  { artifacts, signal, description }: MeasureOptions & { description: ModelDescription },
): Promise<ParityReport> {
  const { mirrored } = description;
  const count = Math.min(parityImageCount(description), all);
  const files = {
    modelJson: new TextDecoder().decode(await readBytes(artifacts, model.layersModel?.digest ?? "")),
    weights: await readBytes(artifacts, model.layersWeights?.digest ?? ""),
  };
  const normalization = { mean: model.channelMeans, standardDeviation: model.channelDeviations };
  const images = pixels.slice(0, (pixels.length / all) * count);
  const expected = await withSpan("compare engines", { attributes: { "millrace.images.count": count } }, () =>
    predictInThread({ files, pixels: images, count, normalization, mirrored }, signal),
  );
  let largest = 0;
  for (const [index, value] of expected.entries())
    largest = Math.max(largest, Math.abs(value - (probabilities[index] ?? 0)));
  return create(ParityReportSchema, { maxProbabilityDifference: largest, imageCount: count });
}

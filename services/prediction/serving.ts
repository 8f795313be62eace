import type { SpanContext } from "@opentelemetry/api";
import type { ModelManifest, ModelVersion } from "../../gen/millrace/v1/model_pb.ts";
import { readBytes } from "../../lib/artifacts/read.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import type { AppError } from "../../lib/errors.ts";
import { decodeConcurrency } from "../../lib/images/decode-image.ts";
import type { InferenceThreads, InferenceWorker } from "../../lib/nn/inference.ts";
import { readModelManifest } from "../../lib/registry/model-manifest.ts";
import { recordBatch, recordInference } from "../../lib/telemetry/serving-metrics.ts";
import { withSpan } from "../../lib/telemetry/spans.ts";
import type { BatchSettings } from "./batch-settings.ts";
import { type Batcher, createBatcher } from "./batcher.ts";

/** What the network says of one image. */
export interface Classification {
  /** Of each class, in label order. */
  readonly probabilities: Float32Array;
  /** Of the run that the image was in. */
  readonly inferenceMs: number;
}

/** A model in memory, ready to answer. */
export interface LoadedModel extends AsyncDisposable {
  readonly version: ModelVersion;
  readonly manifest: ModelManifest;
  /** Takes places for images in the queue; QUEUE_FULL if they would wait for too long. */
  readonly admit: Batcher<Uint8Array, Classification>["admit"];
  /**
   * Classifies an image, in a batch with others that come at the same time. What it is given gives the pixels, uint8 [C, H, W], and is called
   * only if the image is admitted, and not long before its batch.
   */
  readonly classify: Batcher<Uint8Array, Classification>["submit"];
  /** Images that wait or are being decoded. */
  readonly queueLength: number;
  /** How batches are formed from now on. */
  setBatching(settings: BatchSettings): void;
  /** Resolves with the reason if the model can no longer answer, because its thread has died. */
  readonly lost: Promise<AppError>;
  readonly loadedAt: Date;
  /** About what the model takes. */
  readonly memoryBytes: number;
  /** Span of the deployment, under which the model's first answer appears in the run's trace. */
  firstAnswerParent: SpanContext | undefined;
}

/** Answers on made-up pixels before the model counts as ready: the first runs of a session allocate and are slow. */
const warmUpRuns = 3;

export interface LoadOptions {
  readonly artifacts: ArtifactStore;
  readonly threads: InferenceThreads;
  readonly batching: BatchSettings;
  /** Called with the memory that the model will take, in bytes, before it takes it; throws if there is no room. */
  readonly admit?: (bytes: number) => void;
}

/** Loads a version from the store, checked against its digests, and warms it up. */
export async function loadModel(version: ModelVersion, options: LoadOptions): Promise<LoadedModel> {
  const { artifacts, threads, batching, admit } = options;
  const attributes = {
    "millrace.model.name": version.name,
    "millrace.model.version": version.version,
    "millrace.model.digest": version.digest,
  };
  const manifest = await readModelManifest(version, artifacts);
  const memoryBytes = memoryOf(manifest);
  admit?.(memoryBytes);
  const onnx = await readBytes(artifacts, manifest.onnx?.digest ?? "");
  const worker = await withSpan("load model", { attributes }, () => threads.load({ onnx, intraOpThreads: 1 }));
  try {
    await withSpan("warm up", { attributes }, () => warmUp(worker, manifest));
  } catch (thrown) {
    await worker[Symbol.asyncDispose]();
    throw thrown;
  }
  const batcher = createBatcher({
    settings: batching,
    run: async (images: readonly Uint8Array[]) => {
      const { classifications, durationMs } = await runBatch(worker, images);
      recordInference(version, durationMs);
      return { outputs: classifications, durationMs };
    },
    maxPreparing: decodeConcurrency,
    onDispatch: recordBatch,
  });
  return {
    version,
    manifest,
    lost: worker.lost,
    admit: batcher.admit,
    classify: batcher.submit,
    get queueLength() {
      return batcher.queueLength;
    },
    setBatching(settings) {
      batcher.settings = settings;
    },
    loadedAt: new Date(),
    memoryBytes,
    firstAnswerParent: undefined,
    [Symbol.asyncDispose]: () => worker[Symbol.asyncDispose](),
  };
}

/** A thread with its heap and ONNX Runtime's session. */
const threadBytes = 24 * 1024 ** 2;
/** The weights in the file, as they were read, and packed for the processor, and room for a batch: with 6 no network of ours takes more. */
const copiesOfWeights = 6;

function memoryOf({ onnx }: ModelManifest): number {
  return threadBytes + copiesOfWeights * Number(onnx?.sizeBytes ?? 0n);
}

async function runBatch(worker: InferenceWorker, images: readonly Uint8Array[]) {
  const pixels = new Uint8Array(images.reduce((sum, { length }) => sum + length, 0));
  let start = 0;
  for (const image of images) {
    pixels.set(image, start);
    start += image.length;
  }
  const { probabilities, durationMs } = await worker.run(pixels, images.length, { transfer: true });
  const classes = probabilities.length / images.length;
  const classifications = images.map(
    (_, index): Classification => ({
      probabilities: probabilities.subarray(index * classes, (index + 1) * classes),
      inferenceMs: durationMs,
    }),
  );
  return { classifications, durationMs };
}

async function warmUp(worker: InferenceWorker, { input }: ModelManifest): Promise<void> {
  const { height = 0, width = 0, channels = 0 } = input ?? {};
  for (let run = 0; run < warmUpRuns; run++) await worker.run(new Uint8Array(channels * height * width), 1);
}

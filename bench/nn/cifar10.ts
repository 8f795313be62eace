/**
 * Time to accuracy on CIFAR-10: trains a network on 50,000 images once for each seed, classifies the 5,000 test images with the
 * ONNX model that comes of it, and prints a log of it all, one line an epoch. The seconds count from the start of the
 * training, compilation of the step included.
 *
 *     node --import tsx bench/nn/cifar10.ts --network paper --epochs 10 --seeds 1,2,3
 *       --override '{"batchSize":128}'   other hyper-parameters, as in a training's configuration
 *       --cache FOLDER                   where the prepared images stay; default: in the system's temporary folder
 *       --out FILE                       write the same text to a file, too
 *       --checkpoint FILE                keep the state of each seed beside FILE, and go on from it where it is there: a training
 *                                        of hours may be stopped. The seconds are then those of all its parts
 *
 * The images are those of cifar10-images.tar.gz in the folder that MILLRACE_SHARED_DATA names, else in ../shared/data.
 */
import { appendFileSync, existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { AppError } from "../../lib/errors.ts";
import type { LoadedSplit } from "../../lib/images/load-split.ts";
import { decodeCheckpoint } from "../../lib/nn/checkpoint.ts";
import { resolveTrainingConfig, type TrainingConfig } from "../../lib/nn/configuration.ts";
import { engineVersion } from "../../lib/nn/engine.ts";
import { createInferenceWorker } from "../../lib/nn/inference.ts";
import { evaluatePredictions, type Quality } from "../../lib/nn/metrics.ts";
import { type EpochReport, startTraining } from "../../lib/nn/training.ts";
import { machine } from "../report.ts";
import { type Cifar10, loadCifar10 } from "./cifar10-images.ts";

const { values } = parseArgs({
  options: {
    network: { type: "string", default: "small" },
    epochs: { type: "string" },
    seeds: { type: "string", default: "1" },
    override: { type: "string", default: "{}" },
    cache: { type: "string", default: join(tmpdir(), "millrace-cifar10") },
    out: { type: "string" },
    checkpoint: { type: "string" },
  },
});

/** Images classified at a time. */
const testBatch = 250;

/** An epoch as the table shows it. */
interface Row extends EpochReport {
  readonly seconds: number;
}

interface Column {
  readonly title: string;
  readonly width: number;
  text(row: Row): string;
}

const columns: readonly Column[] = [
  { title: "epoch", width: 5, text: ({ epoch }) => `${epoch}` },
  { title: "loss", width: 9, text: ({ loss }) => loss.toFixed(4) },
  { title: "train accuracy", width: 16, text: ({ accuracy }) => percent(accuracy) },
  {
    title: "validation",
    width: 12,
    text: ({ validationAccuracy }) => (validationAccuracy === undefined ? "-" : percent(validationAccuracy)),
  },
  { title: "learning rate", width: 15, text: ({ learningRate }) => learningRate.toFixed(6) },
  { title: "images/s", width: 10, text: ({ imagesPerSecond }) => imagesPerSecond.toFixed(0) },
  { title: "seconds", width: 9, text: ({ seconds }) => seconds.toFixed(1) },
];

const percent = (share: number): string => `${(100 * share).toFixed(2)} %`;
const cells = (text: (column: Column) => string): string =>
  columns.map((column) => text(column).padStart(column.width)).join("");

/** Says a line, and writes it down at once: a run of hours that is stopped leaves what it came to. */
function say(line: string): void {
  console.log(line);
  if (values.out !== undefined) appendFileSync(values.out, `${line}\n`);
}

interface SeedResult {
  readonly accuracy: number;
  readonly seconds: number;
}

/** Where a seed's state is kept; undefined if it is not. */
const stateFile = ({ seed }: TrainingConfig): string | undefined =>
  values.checkpoint && `${values.checkpoint}-${values.network}-${seed}`;

/** Whole or not at all: whoever stops a training does not wait for a file to be written. */
function keep(file: string, bytes: Uint8Array): void {
  writeFileSync(`${file}.incoming`, bytes);
  renameSync(`${file}.incoming`, file);
}

async function trainOnce(images: Cifar10, config: TrainingConfig): Promise<SeedResult> {
  const file = stateFile(config);
  const checkpoint = file !== undefined && existsSync(file) ? readFileSync(file) : undefined;
  const earlierMs = checkpoint === undefined ? 0 : decodeCheckpoint(checkpoint).elapsedMs;
  say(checkpoint === undefined ? `\nseed ${config.seed}` : `\nseed ${config.seed}, after a break`);
  say(cells(({ title }) => title));
  const startedMs = performance.now() - earlierMs;
  const elapsed = (): number => (performance.now() - startedMs) / 1000;
  const job = startTraining(
    { network: values.network, config, data: images.train, ...(checkpoint && { checkpoint }) },
    {
      onEpoch: (report) => say(cells(({ text }) => text({ ...report, seconds: elapsed() }))),
      ...(file !== undefined && { onCheckpoint: (bytes: Uint8Array) => keep(file, bytes) }),
    },
  );
  const { onnx, parameterCount, forwardFlopsPerImage, end, keptEpoch } = await job.result;
  const seconds = elapsed();
  if (file !== undefined) rmSync(file, { force: true });
  if (end !== "completed") say(`ended by ${end}`);
  if (config.keep === "best") say(`the model has the weights of epoch ${keptEpoch}`);
  say(`${parameterCount} parameters, ${(forwardFlopsPerImage / 1e6).toFixed(0)} MFLOP forward an image`);
  const { accuracy, accuracyLow, accuracyHigh } = await evaluate(onnx, images.test, images.train.classes);
  const interval = `95 % interval ${percent(accuracyLow)} to ${percent(accuracyHigh)}`;
  say(`test accuracy ${percent(accuracy)} of ${images.test.count} images (${interval}) after ${seconds.toFixed(1)} s`);
  return { accuracy, seconds };
}

async function evaluate(onnx: Uint8Array, test: LoadedSplit, classes: readonly string[]): Promise<Quality> {
  await using worker = await createInferenceWorker({ onnx });
  const imageBytes = test.pixels.length / test.count;
  const probabilities = new Float32Array(test.count * classes.length);
  for (let start = 0; start < test.count; start += testBatch) {
    const n = Math.min(testBatch, test.count - start);
    const result = await worker.run(test.pixels.subarray(start * imageBytes, (start + n) * imageBytes), n);
    probabilities.set(result.probabilities, start * classes.length);
  }
  return evaluatePredictions({ probabilities, labels: test.labels, classes });
}

/** Mean, standard deviation of a sample, least and most. */
function summary(numbers: readonly number[], text: (value: number) => string): string {
  const mean = numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
  if (numbers.length === 1) return `${text(mean)} (n = 1)`;
  const variance = numbers.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (numbers.length - 1);
  const range = `${text(Math.min(...numbers))} to ${text(Math.max(...numbers))}`;
  return `mean ${text(mean)}, standard deviation ${text(Math.sqrt(variance))}, ${range} (n = ${numbers.length})`;
}

async function main(): Promise<void> {
  const overrides = JSON.parse(values.override) as Record<string, unknown>;
  const epochs = values.epochs === undefined ? {} : { epochs: Number(values.epochs) };
  const configs = values.seeds
    .split(",")
    .map((seed) => resolveTrainingConfig(values.network, { ...overrides, ...epochs, seed: Number(seed) }));
  const images = await loadCifar10(values.cache);
  const goesOn = configs.some((config) => existsSync(stateFile(config) ?? ""));
  if (values.out !== undefined && !goesOn) writeFileSync(values.out, "");
  say(`CIFAR-10, network ${values.network}, ${engineVersion()}`);
  say(machine());
  say(JSON.stringify({ ...configs[0], seed: configs.map(({ seed }) => seed) }));
  const results: SeedResult[] = [];
  for (const config of configs) results.push(await trainOnce(images, config));
  const accuracies = results.map(({ accuracy }) => accuracy);
  const seconds = results.map((result) => result.seconds);
  say(`\ntest accuracy: ${summary(accuracies, percent)}`);
  say(`training: ${summary(seconds, (value) => `${value.toFixed(1)} s`)}`);
}

try {
  await main();
} catch (thrown) {
  console.error(AppError.from(thrown).message);
  process.exitCode = 1;
}

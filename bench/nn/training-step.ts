/**
 * How fast a training step runs: images and floating-point operations a second of each network, beside the rate that ONNX
 * Runtime's bare forward convolution reaches in the same run. A step counts as three forward passes, convolutions and matrix
 * products only, so that everything else it does shows as a loss.
 *
 * Run: node --import tsx bench/nn/training-step.ts
 */
import os from "node:os";
import { env, InferenceSession, Tensor } from "onnxruntime-node";
import { findNetwork, networks } from "../../lib/nn/networks.ts";
import { createGraph } from "../../lib/nn/onnx/graph.ts";
import { convolution } from "../../lib/nn/onnx/operators.ts";
import { createOptimizer } from "../../lib/nn/optimizers.ts";
import { forwardFlops, planFromLayersModel } from "../../lib/nn/plan.ts";
import { createRandom } from "../../lib/nn/random.ts";
import { buildTrainingProgram } from "../../lib/nn/training-graph.ts";
import { createTrainingSession } from "../../lib/nn/training-session.ts";

const rounds = 5;
const stepsPerRound = 3;
const image = { height: 32, width: 32, channels: 3, classes: 10, seed: 1 };
const normalization = { mean: [0.5, 0.5, 0.5], standardDeviation: [0.25, 0.25, 0.25] };

interface Subject {
  readonly name: string;
  readonly images: number;
  readonly flops: number;
  run(): Promise<unknown>;
}

const subjects = [await convolutionSubject(), ...(await Promise.all(networks.map(({ name }) => stepSubject(name))))];
const seconds = await measure(subjects);

console.log(
  `${os.cpus()[0]?.model.trim()}, ${os.availableParallelism()} threads, Node ${process.version}, ONNX Runtime ${env.versions.node}`,
);
console.log(`${rounds} rounds of ${stepsPerRound} runs each; median, and the slowest and fastest round\n`);
const bare = median(rates(subjects, seconds, 0).map(({ gflops }) => gflops));
for (const [index, { name }] of subjects.entries()) {
  const measured = rates(subjects, seconds, index);
  const gflops = measured.map((rate) => rate.gflops);
  const images = median(measured.map((rate) => rate.images));
  console.log(
    [
      name.padEnd(38),
      `${images.toFixed(0).padStart(6)} images/s`,
      `${median(gflops).toFixed(1).padStart(7)} GFLOP/s`,
      `(${Math.min(...gflops).toFixed(1)} to ${Math.max(...gflops).toFixed(1)})`.padEnd(18),
      `${((100 * median(gflops)) / bare).toFixed(0).padStart(4)} % of the convolution`,
    ].join("  "),
  );
}

/** Seconds a run, by subject and round. The subjects take turns, so that a slow moment of the machine meets all of them. */
async function measure(all: readonly Subject[]): Promise<number[][]> {
  const results: number[][] = all.map(() => []);
  for (const subject of all) await subject.run();
  for (let round = 0; round < rounds; round++) {
    for (const [index, subject] of all.entries()) {
      const started = performance.now();
      for (let step = 0; step < stepsPerRound; step++) await subject.run();
      results[index]?.push((performance.now() - started) / 1000 / stepsPerRound);
    }
  }
  return results;
}

function rates(all: readonly Subject[], measured: readonly number[][], index: number) {
  const { images = 0, flops = 0 } = all[index] ?? {};
  return (measured[index] ?? []).map((time) => ({ images: images / time, gflops: flops / time / 1e9 }));
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

/** One forward convolution, 3x3, 64 to 64 channels at 32x32, with weights that are fed as in training. */
async function convolutionSubject(): Promise<Subject> {
  const [batch, channels, size] = [64, 64, 32];
  const graph = createGraph({ name: "convolution" });
  const shape = [batch, channels, size, size];
  const x = graph.input("x", "float32", shape);
  const kernel = graph.input("kernel", "float32", [channels, channels, 3, 3]);
  graph.output(
    "y",
    convolution(graph, { x, kernel }, { kernel: [3, 3], strides: [1, 1], dilations: [1, 1], pads: [1, 1, 1, 1] }),
  );
  const session = await InferenceSession.create(graph.toModel(), { logSeverityLevel: 3 });
  const random = createRandom(1);
  const tensor = (dims: readonly number[]): Tensor => {
    const length = dims.reduce((product, dimension) => product * dimension, 1);
    return new Tensor(
      "float32",
      Float32Array.from({ length }, () => random.normal()),
      dims,
    );
  };
  const feeds = { x: tensor(shape), kernel: tensor([channels, channels, 3, 3]) };
  const fetches = { y: tensor(shape) };
  const flops = 2 * 9 * channels ** 2 * size ** 2 * batch;
  return {
    name: "forward convolution, 64 channels, 32x32",
    images: batch,
    flops,
    run: () => session.run(feeds, fetches),
  };
}

/** Steps of a network on random images, as its defaults say. */
async function stepSubject(name: string): Promise<Subject> {
  const { build, defaults } = findNetwork(name);
  const { batchSize } = defaults;
  const plan = planFromLayersModel(build(image));
  const optimizer = createOptimizer(defaults.optimizer);
  const program = buildTrainingProgram(plan, { batchSize, normalization, optimizer });
  const session = await createTrainingSession(program, { intraOpThreads: 0 });
  const random = createRandom(1);
  const targets = new Float32Array(batchSize * image.classes);
  for (let row = 0; row < batchSize; row++) targets[row * image.classes + random.integer(image.classes)] = 1;
  const batch = {
    pixels: Uint8Array.from({ length: batchSize * 3 * 32 * 32 }, () => random.integer(256)),
    targets,
    masks: program.masks.map(({ shape }) =>
      new Float32Array(shape.reduce((product, length) => product * length, 1)).fill(1),
    ),
  };
  let step = 0;
  return {
    name: `training step of ${name}, batch ${batchSize}`,
    images: batchSize,
    flops: 3 * forwardFlops(plan) * batchSize,
    run: () => session.step(batch, optimizer.scalars(++step, 1e-4)),
  };
}

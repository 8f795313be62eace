/** What the benchmark of training steps compares: each runs one step, or one convolution, at batch 64. */
import { train } from "@tensorflow/tfjs-core";
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { resolveTrainingConfig, type TrainingConfig } from "../../lib/nn/configuration.ts";
import { onnxruntimeEngine } from "../../lib/nn/engines/onnxruntime.ts";
import type { NetworkInput } from "../../lib/nn/networks/definition.ts";
import { findNetwork } from "../../lib/nn/networks.ts";
import { createGraph } from "../../lib/nn/onnx/graph.ts";
import { convolution } from "../../lib/nn/onnx/operators.ts";
import { forwardFlops, planFromLayersModel } from "../../lib/nn/plan.ts";
import { createRandom } from "../../lib/nn/random.ts";
import { core } from "../../lib/nn/tensorflow.ts";
import { buildConvolutionStack } from "./networks.ts";
import { chooseKernels, type KernelChoice } from "./wasm-kernels.ts";

export const batchSize = 64;
const image = { height: 32, width: 32, channels: 3, classes: 10, seed: 1 };
const normalization = { mean: [0.5, 0.5, 0.5], standardDeviation: [0.25, 0.25, 0.25] };
const pixelCount = image.channels * image.height * image.width;

export interface Subject {
  readonly name: string;
  /** Floating-point operations of a run: convolutions and matrix products. */
  readonly flops: number;
  /** Runs a round: one is enough of what takes seconds. */
  readonly runs: number;
  run(): Promise<unknown>;
}

/** A network to measure, and how its steps are trained. */
export interface MeasuredNetwork {
  readonly name: string;
  readonly config: TrainingConfig;
  build(input: NetworkInput): LayersModel;
}

/** A network of the catalogue, or the stack of convolutions, which is trained like `paper`. */
export function measuredNetwork(name: string): MeasuredNetwork {
  const isStack = name === "stack";
  const config = resolveTrainingConfig(isStack ? "paper" : name, { batchSize });
  return { name, config, build: isStack ? buildConvolutionStack : findNetwork(name).build };
}

/** One forward convolution, 3x3, 64 to 64 channels at 32x32, by ONNX Runtime with weights that are fed as in training. */
export async function convolutionSubject(): Promise<Subject> {
  const [channels, size] = [64, 32];
  const graph = createGraph({ name: "convolution" });
  const shape = [batchSize, channels, size, size];
  const x = graph.input("x", "float32", shape);
  const kernel = graph.input("kernel", "float32", [channels, channels, 3, 3]);
  const window = { kernel: [3, 3], strides: [1, 1], dilations: [1, 1], pads: [1, 1, 1, 1] } as const;
  graph.output("y", convolution(graph, { x, kernel }, window));
  const session = await InferenceSession.create(graph.toModel(), { logSeverityLevel: 3 });
  const random = createRandom(1);
  const tensor = (dims: readonly number[]): Tensor => {
    const length = dims.reduce((product, dimension) => product * dimension, 1);
    const values = Float32Array.from({ length }, () => random.normal());
    return new Tensor("float32", values, dims);
  };
  const feeds = { x: tensor(shape), kernel: tensor([channels, channels, 3, 3]) };
  const fetches = { y: tensor(shape) };
  return {
    name: "bare forward convolution",
    flops: 2 * 9 * channels ** 2 * size ** 2 * batchSize,
    runs: 3,
    run: () => session.run(feeds, fetches),
  };
}

/** A step by the compiled graph, on random images. */
export async function compiledSubject({ name, config, build }: MeasuredNetwork): Promise<Subject> {
  const trainer = await onnxruntimeEngine.createTrainer({ model: build(image), config, normalization });
  const random = createRandom(1);
  const length = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);
  const batch = {
    pixels: Uint8Array.from({ length: batchSize * pixelCount }, () => random.integer(256)),
    targets: randomTargets(),
    masks: trainer.masks.map(({ shape }) => new Float32Array(length(shape)).fill(1)),
  };
  let step = 0;
  return {
    name: `${name}, compiled`,
    flops: 3 * trainer.forwardFlopsPerImage * batchSize,
    runs: 3,
    run: () => trainer.step(batch, { step: step++, learningRate: 1e-4 }),
  };
}

/** A step by TensorFlow.js itself, on images that are normalised already. Adam is what both networks measured so use. */
export function wasmSubject({ name, build }: MeasuredNetwork, kernels: KernelChoice): Subject {
  const model = build(image);
  model.compile({ optimizer: train.adam(1e-4), loss: "categoricalCrossentropy" });
  const random = createRandom(1);
  const values = Float32Array.from({ length: batchSize * pixelCount }, () => random.normal());
  const images = core.tensor(values, [batchSize, image.height, image.width, image.channels]);
  const targets = core.tensor(randomTargets(), [batchSize, image.classes]);
  return {
    name: `${name}, WASM, ${kernels} kernels`,
    flops: 3 * forwardFlops(planFromLayersModel(model)) * batchSize,
    runs: 1,
    run() {
      chooseKernels(kernels);
      return model.trainOnBatch(images, targets);
    },
  };
}

/** One class an image, [N, classes]. */
function randomTargets(): Float32Array {
  const random = createRandom(2);
  const targets = new Float32Array(batchSize * image.classes);
  for (let row = 0; row < batchSize; row++) targets[row * image.classes + random.integer(image.classes)] = 1;
  return targets;
}

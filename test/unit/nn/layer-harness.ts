/** Runs one layer's forward and backward pass by our compiler, and the same by TensorFlow.js, and compares gradients. */
import assert from "node:assert/strict";
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { fillMask } from "../../../lib/nn/batches.ts";
import type { LayerNode } from "../../../lib/nn/layers/definition.ts";
import { findLayer } from "../../../lib/nn/layers.ts";
import { createGraph } from "../../../lib/nn/onnx/graph.ts";
import { elementCount } from "../../../lib/nn/onnx/shape.ts";
import type { FloatType } from "../../../lib/nn/onnx/tensor-type.ts";
import { inverseAxes, permute } from "../../../lib/nn/permute.ts";
import { planFromLayersModel } from "../../../lib/nn/plan.ts";
import { createRandom } from "../../../lib/nn/random.ts";
import { core, layers as tf } from "../../../lib/nn/tensorflow.ts";
import { normalArray } from "./random-arrays.ts";

type Layer = LayersModel["layers"][number];

export interface LayerCase {
  /** A layer that has not been used yet. */
  readonly layer: Layer;
  /** Shapes without the batch, as the Layers API has them: [H, W, C] or [F]. */
  readonly inputShapes: readonly (readonly number[])[];
  /** Type to calculate in. float64 where ONNX Runtime has all the operators. Default float32. */
  readonly float?: FloatType;
  /** Step of the finite differences: large for linear layers, small for curved ones. */
  readonly epsilon: number;
  /** Allowed difference, absolute plus relative. */
  readonly tolerance: number;
  /** Of the gradients, only each so many-th element is compared with finite differences. Default 1, all of them. */
  readonly every?: number;
  /** Makes inputs. Default: normally distributed. */
  readonly values?: (seed: number, length: number) => Float32Array;
  /**
   * The layer's forward pass in float64, from its inputs and weights as `CompiledLayer.feeds` has them, NCHW. Where it is given,
   * the finite differences are its, which is as good an oracle for operators that ONNX Runtime has in float32 only.
   */
  readonly reference?: (feeds: Arrays, node: LayerNode) => Float64Array;
}

const batch = 2;
const seed = 11;

/** Our gradients of sum(c y), for a fixed random c, agree with central finite differences element by element. */
export async function assertFiniteDifferences(options: LayerCase): Promise<void> {
  const { epsilon, tolerance, reference, every = 1 } = options;
  const subject = await compileLayer(options);
  const { gradients, output } = await subject.run(subject.feeds);
  const objective = async (feeds: Arrays): Promise<number> =>
    reference ? product(reference(feeds, subject.node), feeds.c) : (await subject.run(feeds)).objective;
  if (reference) assertAllClose(output, reference(subject.feeds, subject.node), tolerance, `output, seed ${seed}`);
  assert.deepEqual(Object.keys(gradients).sort(), gradientNames(subject.node));
  for (const [name, gradient] of Object.entries(gradients)) {
    for (let index = 0; index < gradient.length; index += every) {
      const at = async (step: number): Promise<number> => {
        const changed = Float64Array.from(subject.feeds[name] ?? []);
        changed[index] = (changed[index] ?? 0) + step;
        return objective({ ...subject.feeds, [name]: changed });
      };
      const numeric = ((await at(epsilon)) - (await at(-epsilon))) / (2 * epsilon);
      assertClose(gradient[index] ?? Number.NaN, numeric, tolerance, `gradient of ${name}[${index}], seed ${seed}`);
    }
  }
  await subject.release();
}

/** What a layer owes a gradient: each of its inputs and each weight that is trained. */
function gradientNames({ inputShapes, weights }: LayerNode): string[] {
  const trained = weights.filter(({ role }) => role !== "statistic").map(({ name }) => name);
  return [...inputShapes.map((_, index) => `x${index}`), ...trained].sort();
}

/** Outputs and gradients agree with those that TensorFlow.js calculates on its CPU backend. */
export async function assertSameAsTensorFlow(options: LayerCase): Promise<void> {
  const subject = await compileLayer({ ...options, float: "float32" });
  const { output, gradients } = await subject.run(subject.feeds);
  const expected = tensorFlowGradients(options.layer, subject.node, subject.feeds);
  assertAllClose(output, expected.output, 1e-4, `output, seed ${seed}`);
  assert.deepEqual(Object.keys(gradients).sort(), Object.keys(expected.gradients).sort());
  for (const [name, gradient] of Object.entries(gradients)) {
    assertAllClose(gradient, expected.gradients[name] ?? [], 1e-3, `gradient of ${name}, seed ${seed}`);
  }
  await subject.release();
}

export function assertAllClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  what: string,
): void {
  assert.equal(actual.length, expected.length, `${what}: length`);
  for (let index = 0; index < actual.length; index++) {
    assertClose(actual[index] ?? Number.NaN, expected[index] ?? Number.NaN, tolerance, `${what}, element ${index}`);
  }
}

function assertClose(actual: number, expected: number, tolerance: number, what: string): void {
  const allowed = tolerance * (1 + Math.abs(expected));
  assert.ok(Math.abs(actual - expected) <= allowed, `${what}: ${actual} is not within ${allowed} of ${expected}`);
}

function product(output: Float64Array, c: ArrayLike<number> = []): number {
  return output.reduce((sum, value, index) => sum + value * (c[index] ?? 0), 0);
}

type Arrays = Readonly<Record<string, ArrayLike<number>>>;

interface CompiledLayer {
  readonly node: LayerNode;
  /** Inputs `x0`, `x1`, ..., weights by name, the `mask` of a layer that draws one, and the output's gradient `c`. */
  readonly feeds: Arrays;
  run(feeds: Arrays): Promise<{ output: Float64Array; objective: number; gradients: Record<string, Float64Array> }>;
  release(): Promise<void>;
}

async function compileLayer({
  layer,
  inputShapes,
  float = "float32",
  values = normalArray,
}: LayerCase): Promise<CompiledLayer> {
  const node = nodeFromLayer(layer, inputShapes);
  const graph = createGraph({ name: "layer", float });
  const shapes: Record<string, readonly number[]> = {};
  const feeds: Record<string, ArrayLike<number>> = {};
  const input = (name: string, shape: readonly number[], data: ArrayLike<number>) => {
    shapes[name] = shape;
    feeds[name] = data;
    return graph.input(name, float, shape);
  };
  const [first, ...rest] = node.inputShapes.map((shape, index) =>
    input(`x${index}`, [batch, ...shape], values(seed + index, batch * elementCount(shape))),
  );
  assert.ok(first);
  const weights = node.weights.map(({ name, shape, role }, index) => {
    const data = normalArray(seed + 10 + index, elementCount(shape));
    return [name, input(name, shape, role === "normalization" ? data.map((value) => 1 + value / 4) : data)] as const;
  });
  const inputs = [first, ...rest] as const;
  const trained = findLayer(node).train({
    graph,
    node,
    inputs,
    weights: Object.fromEntries(weights),
    needsGradient: inputs.map(() => true),
    mask(rate) {
      const [shape, values] = [[batch, ...(node.inputShapes[0] ?? [])], new Float32Array(elementCount(first.shape))];
      fillMask(createRandom(seed + 30), { name: "mask", shape, rate }, values);
      return input("mask", shape, values);
    },
  });
  const c = input("c", [batch, ...node.outputShape], normalArray(seed + 20, batch * elementCount(node.outputShape)));
  const gradients = trained.backward(c);
  graph.output("y", trained.output);
  const names = Object.entries(gradients.weights ?? {}).map(([name, value]) => ({ name, value }));
  for (const [index, value] of gradients.inputs.entries()) if (value) names.push({ name: `x${index}`, value });
  for (const { name, value } of names) graph.output(`gradient/${name}`, value);

  const session = await InferenceSession.create(graph.toModel(), { logSeverityLevel: 3, intraOpNumThreads: 1 });
  const tensor = (name: string, data: ArrayLike<number>): Tensor =>
    float === "float64"
      ? new Tensor("float64", Float64Array.from(data), shapes[name] ?? [])
      : new Tensor("float32", Float32Array.from(data), shapes[name] ?? []);
  return {
    node,
    feeds,
    async run(fed) {
      const entries = Object.entries(fed).map(([name, data]) => [name, tensor(name, data)] as const);
      const results = await session.run(Object.fromEntries(entries));
      const read = (name: string): Float64Array => Float64Array.from(results[name]?.data as Float32Array);
      const output = read("y");
      return {
        output,
        objective: product(output, fed.c),
        gradients: Object.fromEntries(names.map(({ name }) => [name, read(`gradient/${name}`)])),
      };
    },
    release: () => session.release(),
  };
}

/** The plan's node of a layer, from a model that has nothing else but what a network must end in. */
function nodeFromLayer(layer: Layer, inputShapes: readonly (readonly number[])[]): LayerNode {
  const [shape = []] = inputShapes;
  const first = tf.input({ shape: shape.length === 1 ? [1, 1, ...shape] : [...shape] });
  // Each of the layer's inputs is a node of its own; all have the shape of the network's input, or of that as a vector.
  const sources = inputShapes.map(() => {
    const source = shape.length === 1 ? tf.layers.flatten() : tf.layers.activation({ activation: "linear" });
    return source.apply(first) as typeof first;
  });
  const [only] = sources;
  const output = layer.apply(sources.length > 1 || only === undefined ? sources : only) as typeof first;
  const flat = output.shape.length === 2 ? output : (tf.layers.flatten().apply(output) as typeof first);
  const head = tf.layers.dense({ units: 2, activation: "softmax" }).apply(flat) as typeof first;
  const model = tf.model({ inputs: first, outputs: head });
  const node = planFromLayersModel(model).nodes.find((candidate) => candidate.name === layer.name);
  assert.ok(node, `layer ${layer.name} is in the plan`);
  return node;
}

function tensorFlowGradients(layer: Layer, node: LayerNode, feeds: Arrays) {
  const weights = node.weights.map(({ name, shape, axes }) => {
    const back = inverseAxes(axes ?? shape.map((_, axis) => axis));
    return core.tensor(
      permute(Float32Array.from(feeds[name] ?? []), shape, back),
      back.map((axis) => shape[axis] ?? 1),
    );
  });
  if (weights.length > 0) layer.setWeights(weights);
  const inputs = node.inputShapes.map((shape, index) => core.variable(toChannelsLast(feeds[`x${index}`] ?? [], shape)));
  const c = toChannelsLast(feeds.c ?? [], node.outputShape);
  let output: core.Tensor | undefined;
  const objective = (): core.Scalar => {
    const [x] = inputs;
    const y = layer.apply(inputs.length > 1 || x === undefined ? inputs : x, { training: true }) as core.Tensor;
    output = core.keep(y.clone());
    return core.sum(core.mul(y, c)) as core.Scalar;
  };
  const variables = layer.trainableWeights.map((weight) => weight.read() as core.Variable);
  const { grads } = core.variableGrads(objective, [...inputs, ...variables]);
  const gradients: Record<string, ArrayLike<number>> = {};
  for (const [index, input] of inputs.entries()) {
    const gradient = grads[input.name];
    if (gradient) gradients[`x${index}`] = toChannelsFirst(gradient);
  }
  const trainable = node.weights.filter(({ role }) => role !== "statistic");
  for (const [index, { name, axes }] of trainable.entries()) {
    const gradient = grads[variables[index]?.name ?? ""];
    if (!gradient) continue;
    const identity = gradient.shape.map((_, axis) => axis);
    gradients[name] = permute(gradient.dataSync() as Float32Array, gradient.shape, axes ?? identity);
  }
  assert.ok(output);
  return { output: toChannelsFirst(output), gradients };
}

function toChannelsLast(values: ArrayLike<number>, shape: readonly number[]): core.Tensor {
  const full = [batch, ...shape];
  if (shape.length !== 3) return core.tensor(Float32Array.from(values), full);
  const [, channels = 0, height = 0, width = 0] = full;
  return core.tensor(permute(Float32Array.from(values), full, [0, 2, 3, 1]), [batch, height, width, channels]);
}

function toChannelsFirst(tensor: core.Tensor): Float32Array {
  const values = tensor.dataSync() as Float32Array;
  return tensor.shape.length === 4 ? permute(values, tensor.shape, [0, 3, 1, 2]) : values;
}

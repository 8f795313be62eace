/** Whether the kernels of wasm-kernels.ts are right: gradients with them beside those of TensorFlow.js's CPU backend. */
import * as tf from "@tensorflow/tfjs-core";
import { createRandom } from "../../lib/nn/random.ts";
import { chooseKernels } from "./wasm-kernels.ts";

/** Largest difference that rounding explains, as a share of the largest value. */
const tolerance = 1e-4;

interface Case {
  readonly name: string;
  readonly shapes: readonly (readonly number[])[];
  apply(x: tf.Tensor, weights: tf.Tensor): tf.Tensor;
}

/** What the measured networks are made of, with sizes that differ, so that no two axes can be taken for each other. */
const cases: readonly Case[] = [
  {
    name: "convolution",
    shapes: [
      [3, 7, 6, 4],
      [3, 3, 4, 5],
    ],
    apply: (x, weights) => tf.conv2d(x as tf.Tensor4D, weights as tf.Tensor4D, 1, "same"),
  },
  {
    name: "dense layer",
    shapes: [
      [3, 6],
      [6, 5],
    ],
    apply: (x, weights) => tf.relu(tf.matMul(x, weights)),
  },
  { name: "batch normalisation", shapes: [[3, 8, 6, 4], [4]], apply: normalize },
  { name: "batch normalisation of vectors", shapes: [[9, 4], [4]], apply: normalize },
  { name: "bias", shapes: [[3, 8, 6, 4], [4]], apply: (x, weights) => tf.relu(tf.add(x, weights)) },
  {
    name: "max-pooling",
    shapes: [[3, 8, 6, 4], [4]],
    apply: (x, weights) => tf.mul(tf.maxPool(x as tf.Tensor4D, 2, 2, "valid"), weights),
  },
  {
    name: "global average pooling",
    shapes: [[3, 8, 6, 4], [4]],
    apply: (x, weights) => tf.mul(tf.mean(x, [1, 2]), weights),
  },
];

function normalize(x: tf.Tensor, scale: tf.Tensor): tf.Tensor {
  const { mean, variance } = tf.moments(x, [...x.shape.keys()].slice(0, -1));
  const [means, variances, scales] = [mean, variance, scale] as [tf.Tensor1D, tf.Tensor1D, tf.Tensor1D];
  return tf.batchNorm(x as tf.Tensor4D, means, variances, tf.zerosLike(scales), scales);
}

/** Throws, naming the operation, where the gradients of the two backends differ. Leaves WebAssembly as the backend. */
export async function checkWasmKernels(): Promise<void> {
  await tf.setBackend("cpu");
  const expected = cases.map(gradients);
  await tf.setBackend("wasm");
  chooseKernels("fastest");
  for (const [index, { name }] of cases.entries()) {
    const measured = gradients(cases[index] as Case);
    for (const [which, values] of (expected[index] ?? []).entries()) {
      const difference = largest(values, (value, at) => value - (measured[which]?.[at] ?? Number.NaN));
      if (difference <= tolerance * largest(values, (value) => value)) continue;
      throw new Error(`the gradient of ${name} to its argument ${which} is off by ${difference}: no figures`);
    }
  }
}

/** The gradients to both arguments of a sum with random factors, so that no part of them cancels out. */
function gradients({ shapes, apply }: Case): Float32Array[] {
  const random = createRandom(1);
  const normal = (shape: readonly number[]): tf.Tensor => {
    const length = shape.reduce((product, size) => product * size, 1);
    return tf.tensor(
      Float32Array.from({ length }, () => random.normal()),
      [...shape],
    );
  };
  const results = tf.tidy(() => {
    const inputs = shapes.map(normal);
    const weighted = (x: tf.Tensor, weights: tf.Tensor): tf.Scalar => {
      const y = apply(x, weights);
      return tf.sum(tf.mul(y, normal(y.shape)));
    };
    return tf.grads(weighted)(inputs);
  });
  return results.map((gradient) => {
    const values = gradient.dataSync() as Float32Array;
    gradient.dispose();
    return values;
  });
}

function largest(values: Float32Array, of: (value: number, index: number) => number): number {
  return values.reduce((most, value, index) => {
    const size = Math.abs(of(value, index));
    return size > most || Number.isNaN(size) ? size : most;
  }, 0);
}

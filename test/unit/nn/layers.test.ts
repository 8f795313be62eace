/** Every layer's gradients, against central finite differences and against TensorFlow.js. */
import { test } from "node:test";
import { layers as tf } from "../../../lib/nn/tensorflow.ts";
import { elementWiseReference, gelu } from "./float64-references.ts";
import { assertFiniteDifferences, assertSameAsTensorFlow, type LayerCase } from "./layer-harness.ts";
import { distinctArray } from "./random-arrays.ts";

/** A convolution is linear in each of its arguments, so a large step costs no accuracy and float32 is good enough. */
const linear = { epsilon: 0.5, tolerance: 2e-4 };
const curved = { float: "float64", epsilon: 1e-5, tolerance: 1e-6 } as const;
/** Piecewise linear: exact as long as no step crosses a kink. */
const pieces = { epsilon: 0.02, tolerance: 2e-3, values: distinctArray };

/** float32 gradients against finite differences of a float64 reference. */
const float32 = { epsilon: 1e-5, tolerance: 1e-5 };

const cases: Readonly<Record<string, () => LayerCase>> = {
  "Conv2D 3x3, same padding": () => conv({ kernelSize: 3, padding: "same" }),
  "Conv2D 3x3, valid padding, no bias": () => conv({ kernelSize: 3, padding: "valid", useBias: false }),
  "Conv2D 3x3, stride 2, same padding on an odd size": () => conv({ kernelSize: 3, strides: 2, padding: "same" }),
  "Conv2D 3x2, stride 2 by 1, valid padding": () => conv({ kernelSize: [3, 2], strides: [2, 1] }),
  "Conv2D 2x2, same padding, which is uneven": () => conv({ kernelSize: 2, padding: "same" }),
  "Conv2D 1x1": () => conv({ kernelSize: 1 }),
  Dense: () => ({ layer: tf.layers.dense({ units: 4 }), inputShapes: [[5]], ...curved }),
  "Dense without bias": () => ({ layer: tf.layers.dense({ units: 3, useBias: false }), inputShapes: [[6]], ...curved }),
  "BatchNormalization of images": () => ({
    layer: tf.layers.batchNormalization(),
    inputShapes: [[3, 4, 2]],
    ...curved,
  }),
  // The batch of two makes vectors collapse to plus and minus one, so epsilon is large to keep a slope.
  "BatchNormalization of vectors": () => ({
    layer: tf.layers.batchNormalization({ epsilon: 0.5 }),
    inputShapes: [[5]],
    ...curved,
  }),
  ReLU: () => ({ layer: tf.layers.reLU(), inputShapes: [[3, 3, 2]], ...pieces }),
  "Activation relu": () => ({ layer: tf.layers.activation({ activation: "relu" }), inputShapes: [[7]], ...pieces }),
  "Activation linear": () => ({ layer: tf.layers.activation({ activation: "linear" }), inputShapes: [[7]], ...pieces }),
  "Activation gelu": () => ({
    layer: tf.layers.activation({ activation: "gelu" }),
    inputShapes: [[5, 5, 4]],
    reference: elementWiseReference(gelu),
    ...float32,
  }),
  "MaxPooling2D 2x2": () => ({ layer: tf.layers.maxPooling2d({ poolSize: 2 }), inputShapes: [[4, 6, 2]], ...pieces }),
  "MaxPooling2D 2x2 on an odd size": () => ({
    layer: tf.layers.maxPooling2d({ poolSize: 2 }),
    inputShapes: [[5, 5, 2]],
    ...pieces,
  }),
  "MaxPooling2D 2x2, same padding on an odd size": () => ({
    layer: tf.layers.maxPooling2d({ poolSize: 2, padding: "same" }),
    inputShapes: [[5, 3, 2]],
    ...pieces,
  }),
  "MaxPooling2D with windows that overlap": () => ({
    layer: tf.layers.maxPooling2d({ poolSize: 3, strides: 2, padding: "same" }),
    inputShapes: [[5, 6, 2]],
    ...pieces,
  }),
  GlobalMaxPooling2D: () => ({ layer: tf.layers.globalMaxPooling2d({}), inputShapes: [[3, 4, 3]], ...pieces }),
  "AveragePooling2D 2x2": () => ({
    layer: tf.layers.averagePooling2d({ poolSize: 2 }),
    inputShapes: [[4, 6, 2]],
    ...linear,
  }),
  "AveragePooling2D with windows that overlap": () => ({
    layer: tf.layers.averagePooling2d({ poolSize: 3, strides: 2 }),
    inputShapes: [[7, 5, 2]],
    ...linear,
  }),
  GlobalAveragePooling2D: () => ({ layer: tf.layers.globalAveragePooling2d({}), inputShapes: [[3, 4, 3]], ...curved }),
  "Flatten of images": () => ({ layer: tf.layers.flatten(), inputShapes: [[3, 2, 4]], ...curved }),
  "Add of three": () => ({
    layer: tf.layers.add(),
    inputShapes: [
      [2, 2, 3],
      [2, 2, 3],
      [2, 2, 3],
    ],
    ...curved,
  }),
};

for (const [name, make] of Object.entries(cases)) {
  test(`the gradients of ${name} agree with finite differences`, () => assertFiniteDifferences(make()));
  test(`${name} gives what TensorFlow.js gives, forward and backward`, () => assertSameAsTensorFlow(make()));
}

function conv(options: Omit<Parameters<typeof tf.layers.conv2d>[0], "filters">): LayerCase {
  return { layer: tf.layers.conv2d({ filters: 3, ...options }), inputShapes: [[5, 7, 2]], ...linear };
}

// TensorFlow.js has no gradient for this, so finite differences are the only oracle.
test("the gradients of Conv2D 3x3 with dilation 2 agree with finite differences", () =>
  assertFiniteDifferences(conv({ kernelSize: 3, dilationRate: 2, padding: "same" })));

// In its gradient, TensorFlow.js divides by the whole window at the border too, though not in its forward pass.
test("the gradients of AveragePooling2D with same padding agree with finite differences", () =>
  assertFiniteDifferences({
    layer: tf.layers.averagePooling2d({ poolSize: 3, strides: 2, padding: "same" }),
    inputShapes: [[6, 5, 2]],
    ...linear,
  }));

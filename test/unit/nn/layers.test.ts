/** Every layer's gradients, against central finite differences and against TensorFlow.js. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { supportedLayers } from "../../../lib/nn/layers.ts";
import { layers as tf } from "../../../lib/nn/tensorflow.ts";
import {
  averagePoolingReference,
  convolutionReference,
  depthwiseReference,
  elementWiseReference,
  gelu,
  globalMaxPoolingReference,
  maskReference,
  maxPoolingReference,
  separableReference,
} from "./float64-references.ts";
import { assertFiniteDifferences, assertSameAsTensorFlow, type LayerCase } from "./layer-harness.ts";
import { distinctArray } from "./random-arrays.ts";

const curved = { float: "float64", epsilon: 1e-5, tolerance: 1e-6 } as const;
/** float32 gradients against finite differences of a float64 reference: what is left is the rounding of float32. */
const float32 = { epsilon: 1e-5, tolerance: 2e-5 };
/** Piecewise linear: no step crosses a kink, and no two values tie. */
const pieces = { ...float32, values: distinctArray };

type Layer = LayerCase["layer"];
const image = [[5, 5, 4]];

const cases: Readonly<Record<string, () => LayerCase>> = {
  "Conv2D 3x3, same padding": () => conv({ kernelSize: 3, padding: "same" }),
  "Conv2D 3x3, valid padding, no bias": () => conv({ kernelSize: 3, padding: "valid", useBias: false }),
  "Conv2D 3x3, stride 2, same padding on an odd size": () => conv({ kernelSize: 3, strides: 2, padding: "same" }),
  "Conv2D 3x2, stride 2 by 1, valid padding": () => conv({ kernelSize: [3, 2], strides: [2, 1] }),
  "Conv2D 2x2, same padding, which is uneven": () => conv({ kernelSize: 2, padding: "same" }),
  "Conv2D 1x1": () => conv({ kernelSize: 1 }),
  "DepthwiseConv2D 3x3, same padding": () => depthwise({ kernelSize: 3, padding: "same" }),
  "DepthwiseConv2D 3x3, two kernels a channel, no bias": () =>
    depthwise({ kernelSize: 3, depthMultiplier: 2, useBias: false }),
  "DepthwiseConv2D 3x3, stride 2, same padding": () =>
    depthwise({ kernelSize: 3, strides: [2, 2], padding: "same", depthMultiplier: 3 }),
  "DepthwiseConv2D 2x3, stride 2, valid padding that leaves pixels out": () =>
    depthwise({ kernelSize: [2, 3], strides: [2, 2] }),
  "SeparableConv2D 3x3, same padding": () => separable({ kernelSize: 3, padding: "same" }),
  "SeparableConv2D 3x3, stride 2, two kernels a channel, no bias": () =>
    separable({ kernelSize: 3, strides: 2, depthMultiplier: 2, useBias: false }),
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
  ReLU: () => piecewise(tf.layers.reLU(), (x) => Math.max(0, x)),
  "ReLU with a maximum": () => piecewise(tf.layers.reLU({ maxValue: 2 }), (x) => Math.min(Math.max(0, x), 2)),
  LeakyReLU: () => piecewise(tf.layers.leakyReLU(), (x) => (x > 0 ? x : 0.3 * x)),
  "LeakyReLU with a slope above one": () =>
    piecewise(tf.layers.leakyReLU({ alpha: 1.5 }), (x) => (x > 0 ? x : 1.5 * x)),
  ELU: () => elementWise(tf.layers.elu(), elu),
  "Activation relu": () => piecewise(activation("relu"), (x) => Math.max(0, x), [7]),
  "Activation relu6": () => piecewise(activation("relu6"), (x) => Math.min(Math.max(0, x), 6), [30, 3, 2]),
  "Activation linear": () => piecewise(activation("linear"), (x) => x, [7]),
  "Activation elu": () => elementWise(activation("elu"), elu),
  "Activation gelu": () => elementWise(activation("gelu"), gelu),
  "Activation swish": () => elementWise(activation("swish"), (x) => x / (1 + Math.exp(-x))),
  "Activation sigmoid": () => ({ layer: activation("sigmoid"), inputShapes: image, ...curved }),
  "Activation tanh": () => ({ layer: activation("tanh"), inputShapes: image, ...curved }),
  "Activation softmax over channels": () => ({ layer: activation("softmax"), inputShapes: image, ...curved }),
  "Activation softmax of vectors": () => ({ layer: activation("softmax"), inputShapes: [[7]], ...curved }),
  "Softmax over channels": () => ({ layer: tf.layers.softmax({ axis: -1 }), inputShapes: [[3, 4, 2]], ...curved }),
  "Softmax of vectors": () => ({ layer: tf.layers.softmax(), inputShapes: [[7]], ...curved }),
  "MaxPooling2D 2x2": () => maxPooling({ poolSize: 2 }, [4, 6, 2]),
  "MaxPooling2D 2x2 on an odd size": () => maxPooling({ poolSize: 2 }, [5, 5, 2]),
  "MaxPooling2D 2x2, same padding on an odd size": () => maxPooling({ poolSize: 2, padding: "same" }, [5, 3, 2]),
  "MaxPooling2D with windows that overlap": () => maxPooling({ poolSize: 3, strides: 2, padding: "same" }, [5, 6, 2]),
  GlobalMaxPooling2D: () => ({
    layer: tf.layers.globalMaxPooling2d({}),
    inputShapes: [[3, 4, 3]],
    reference: globalMaxPoolingReference,
    ...pieces,
  }),
  "AveragePooling2D 2x2": () => averagePooling({ poolSize: 2 }),
  "AveragePooling2D with windows that overlap": () => averagePooling({ poolSize: 3, strides: 2 }),
  GlobalAveragePooling2D: () => ({ layer: tf.layers.globalAveragePooling2d({}), inputShapes: [[3, 4, 3]], ...curved }),
  "Flatten of images": () => ({ layer: tf.layers.flatten(), inputShapes: [[3, 2, 4]], ...curved }),
  "Reshape of images to other images": () => reshape([4, 2, 3], [3, 2, 4]),
  "Reshape of images to rows of numbers": () => reshape([4, 6], [3, 2, 4]),
  "Reshape of vectors to images": () => reshape([2, 2, 3], [12]),
  "ZeroPadding2D that is uneven": () => {
    const padding = [[1, 2], [0, 3]] as [[number, number], [number, number]]; // biome-ignore format: pairs
    return { layer: tf.layers.zeroPadding2d({ padding }), inputShapes: [[2, 3, 2]], ...curved };
  },
  Rescaling: () => ({ layer: tf.layers.rescaling({ scale: 3, offset: -0.5 }), inputShapes: [[2, 3, 2]], ...curved }),
  "Add of three": () => ({
    layer: tf.layers.add(),
    inputShapes: [
      [2, 2, 3],
      [2, 2, 3],
      [2, 2, 3],
    ],
    ...curved,
  }),
  "Concatenate of two images": () => ({
    layer: tf.layers.concatenate(),
    inputShapes: [
      [2, 3, 2],
      [2, 3, 2],
    ],
    ...curved,
  }),
  "Concatenate of three vectors": () => ({
    layer: tf.layers.concatenate({ axis: 1 }),
    inputShapes: [[4], [4], [4]],
    ...curved,
  }),
};

for (const [name, make] of Object.entries(cases)) {
  test(`the gradients of ${name} agree with finite differences`, () => assertFiniteDifferences(make()));
  test(`${name} gives what TensorFlow.js gives, forward and backward`, () => assertSameAsTensorFlow(make()));
}

/** Of these TensorFlow.js has no gradient, or a wrong one, so that finite differences are the only oracle. */
const withoutSecondOracle: Readonly<Record<string, () => LayerCase>> = {
  // TensorFlow.js refuses to differentiate a dilated convolution.
  "Conv2D 3x3 with dilation 2": () => conv({ kernelSize: 3, dilationRate: 2, padding: "same" }),
  "SeparableConv2D 3x3 with dilation 2": () => separable({ kernelSize: 3, dilationRate: 2 }),
  // It divides by the whole window at the border too, though not in its forward pass.
  "AveragePooling2D with same padding": () => averagePooling({ poolSize: 3, strides: 2, padding: "same" }),
  // It draws its mask where nobody can see it.
  Dropout: () => ({
    layer: tf.layers.dropout({ rate: 0.4 }),
    inputShapes: image,
    reference: maskReference,
    ...curved,
  }),
};

for (const [name, make] of Object.entries(withoutSecondOracle)) {
  test(`the gradients of ${name} agree with finite differences`, () => assertFiniteDifferences(make()));
}

test("every supported layer is among those whose gradients are tested", () => {
  const makers = [...Object.values(cases), ...Object.values(withoutSecondOracle)];
  const tested = new Set(makers.map((make) => make().layer.getClassName()));
  assert.deepEqual([...tested].sort(), supportedLayers);
});

function conv(options: Omit<Parameters<typeof tf.layers.conv2d>[0], "filters">): LayerCase {
  const layer = tf.layers.conv2d({ filters: 3, ...options });
  return { layer, inputShapes: [[5, 7, 2]], reference: convolutionReference, ...float32 };
}

function depthwise(options: Parameters<typeof tf.layers.depthwiseConv2d>[0]): LayerCase {
  const layer = tf.layers.depthwiseConv2d(options);
  return { layer, inputShapes: [[5, 7, 2]], reference: depthwiseReference, ...float32 };
}

function separable(options: Omit<Parameters<typeof tf.layers.separableConv2d>[0], "filters">): LayerCase {
  const layer = tf.layers.separableConv2d({ filters: 3, ...options } as Parameters<
    typeof tf.layers.separableConv2d
  >[0]);
  return { layer, inputShapes: [[5, 7, 2]], reference: separableReference, ...float32 };
}

function averagePooling(options: Parameters<typeof tf.layers.averagePooling2d>[0]): LayerCase {
  const layer = tf.layers.averagePooling2d(options);
  return { layer, inputShapes: [[6, 5, 2]], reference: averagePoolingReference, ...float32 };
}

function maxPooling(options: Parameters<typeof tf.layers.maxPooling2d>[0], inputShape: number[]): LayerCase {
  const layer = tf.layers.maxPooling2d(options);
  return { layer, inputShapes: [inputShape], reference: maxPoolingReference, ...pieces };
}

function reshape(targetShape: number[], inputShape: number[]): LayerCase {
  return { layer: tf.layers.reshape({ targetShape }), inputShapes: [inputShape], ...curved };
}

function activation(name: Parameters<typeof tf.layers.activation>[0]["activation"]): Layer {
  return tf.layers.activation({ activation: name });
}

function elementWise(layer: Layer, f: (x: number) => number): LayerCase {
  return { layer, inputShapes: image, reference: elementWiseReference(f), ...float32 };
}

function piecewise(layer: Layer, f: (x: number) => number, inputShape = [5, 5, 4]): LayerCase {
  return { layer, inputShapes: [inputShape], reference: elementWiseReference(f), ...pieces };
}

function elu(x: number): number {
  return x > 0 ? x : Math.expm1(x);
}

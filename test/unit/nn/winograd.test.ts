/** Convolutions by Winograd's algorithm: where it is chosen, and that it gives what the definition of a convolution gives. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { isWinogradFaster } from "../../../lib/nn/layers/winograd.ts";
import { createGraph } from "../../../lib/nn/onnx/graph.ts";
import type { Window } from "../../../lib/nn/onnx/operators.ts";
import { layers as tf } from "../../../lib/nn/tensorflow.ts";
import { convolutionReference } from "./float64-references.ts";
import { assertFiniteDifferences, assertSameAsTensorFlow, type LayerCase } from "./layer-harness.ts";
import { normalArray } from "./random-arrays.ts";

const channels = 32;

/** Sizes of images, [rows, columns], and paddings that meet every kind of tile. */
const cases: Readonly<Record<string, { size: [number, number]; padding: "same" | "valid"; useBias?: boolean }>> = {
  "tiles that fit, zeros around": { size: [12, 12], padding: "same" },
  "tiles that do not fit, zeros around": { size: [11, 13], padding: "same", useBias: false },
  "tiles that do not fit, no zeros around": { size: [14, 13], padding: "valid" },
  "a single row of tiles": { size: [4, 40], padding: "same" },
};

for (const [name, { size, padding, useBias = true }] of Object.entries(cases)) {
  const make = (): LayerCase => ({
    layer: tf.layers.conv2d({ filters: channels, kernelSize: 3, padding, useBias }),
    inputShapes: [[...size, channels]],
    float: "float64",
    // Outputs are sums over 288 products: so they are about as large as one, which the tolerances are made for.
    values: (seed, length) => normalArray(seed, length).map((value) => value / 16),
    reference: convolutionReference,
    // The reference is linear, so a large step loses nothing.
    epsilon: 1,
    tolerance: 1e-9,
    every: 641,
  });

  test(`${name}: Winograd is chosen`, () => {
    assert.ok(isFaster({ size, padding: padding === "same" ? 1 : 0 }));
  });
  test(`${name}: output and gradients are those of the definition, in float64`, () => assertFiniteDifferences(make()));
  test(`${name}: output and gradients are those of TensorFlow.js, in float32`, () => assertSameAsTensorFlow(make()));
}

test("Winograd is chosen only for kernels of 3x3 that move by one pixel over neighbours", () => {
  const others: Partial<Window>[] = [
    { kernel: [3, 1] },
    { kernel: [5, 5] },
    { strides: [1, 2] },
    { dilations: [2, 2] },
  ];
  assert.ok(isFaster({ size: [12, 12] }));
  for (const other of others) assert.equal(isFaster({ size: [12, 12], window: other }), false, JSON.stringify(other));
});

test("few channels, large images and next to no work are left to the direct convolution", () => {
  assert.equal(isFaster({ size: [32, 32], features: 3 }), false);
  assert.equal(isFaster({ size: [32, 32], features: 64 }), true);
  assert.equal(isFaster({ size: [224, 224], features: 64 }), false);
  assert.equal(isFaster({ size: [8, 8], features: 20 }), false);
});

interface Convolution {
  readonly size: readonly [number, number];
  readonly features?: number;
  readonly padding?: number;
  readonly window?: Partial<Window>;
}

function isFaster({ size, features = channels, padding = 1, window = {} }: Convolution): boolean {
  const graph = createGraph({ name: "convolution" });
  const x = graph.input("x", "float32", [2, features, ...size]);
  const kernel = graph.input("kernel", "float32", [features, features, ...(window.kernel ?? [3, 3])]);
  const pads = [padding, padding, padding, padding] as const;
  return isWinogradFaster({ x, kernel }, { kernel: [3, 3], strides: [1, 1], dilations: [1, 1], pads, ...window });
}

import assert from "node:assert/strict";
import { test } from "node:test";
import { core } from "../../../lib/nn/tensorflow.ts";
import { symmetricEigenvectors, whiteningKernel } from "../../../lib/nn/whitening.ts";
import { assertAllClose } from "./layer-harness.ts";
import { normalArray } from "./random-arrays.ts";

test("eigenvectors turn a symmetric matrix into its eigenvalues, largest first", () => {
  const size = 5;
  const random = core.tensor2d(normalArray(3, size * size), [size, size]);
  const matrix = core.matMul(random, random, false, true);
  const { values, vectors } = symmetricEigenvectors(Float64Array.from(matrix.dataSync()), size);
  const columns = core.tensor2d(Float32Array.from(vectors), [size, size]);
  const diagonal = core.matMul(core.matMul(columns, matrix, true), columns).dataSync();
  const expected = Float64Array.from(diagonal, (_, index) =>
    index % (size + 1) === 0 ? (values[index / (size + 1)] ?? 0) : 0,
  );
  assertAllClose(diagonal, expected, 1e-4, "diagonal form");
  assert.deepEqual(
    [...values],
    [...values].toSorted((one, other) => other - one),
  );
});

for (const channels of [1, 3]) {
  test(`patches of ${channels} channels that have gone through the whitening kernel are uncorrelated and of variance one`, () => {
    // Neighbours that share values are correlated, as in pictures.
    const noise = core.tensor4d(normalArray(7, 40 * 9 * 9 * channels), [40, 9, 9, channels]);
    const images = core.avgPool(noise, 2, 1, "valid");
    const kernel = whiteningKernel(images, 2);
    const half = 4 * channels;
    assert.deepEqual(kernel.shape, [2, 2, channels, 2 * half]);
    const whitened = core.reshape(core.conv2d(images, kernel, 1, "valid"), [-1, 2 * half]);
    const count = whitened.shape[0] ?? 1;
    const covariance = core.div(core.matMul(whitened, whitened, true), count).dataSync();
    const expected = Float32Array.from(covariance, (_, index) => {
      const [row, column] = [Math.floor(index / (2 * half)), index % (2 * half)];
      if (row === column) return 1;
      return Math.abs(row - column) === half ? -1 : 0;
    });
    // The smallest variances of these patches are about 0.02, so the smoothing shows in the second digit.
    assertAllClose(covariance, expected, 0.05, "covariance");
  });
}

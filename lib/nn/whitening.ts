/**
 * A first layer that whitens: convolution kernels that turn patches of the training images into uncorrelated numbers of equal variance.
 * What comes after then learns faster, and the layer itself need not be trained (Page 2019, "How to train your ResNet 8";
 * Jordan 2024, arXiv 2404.00498).
 */
import { AppError } from "../errors.ts";
import { core } from "./tensorflow.ts";

/** Added to each variance, so that directions in which patches hardly differ are not blown up to noise. */
const smoothing = 5e-4;

/**
 * A kernel [size, size, C, 2 C size^2]: the eigenvectors of the patches' covariance, each divided by its standard deviation, and
 * all of them again with the other sign, so that a rectifying activation loses nothing. `images` are normalised, [N, H, W, C].
 */
export function whiteningKernel(images: core.Tensor4D, size: number): core.Tensor4D {
  const channels = images.shape[3];
  const dimension = size * size * channels;
  const { values, vectors } = symmetricEigenvectors(patchCovariance(images, size), dimension);
  const kernel = new Float32Array(dimension * 2 * dimension);
  for (let row = 0; row < dimension; row++) {
    for (let column = 0; column < dimension; column++) {
      const deviation = Math.sqrt(Math.max(0, at(values, column)) + smoothing);
      const weight = at(vectors, row * dimension + column) / deviation;
      kernel[row * 2 * dimension + column] = weight;
      kernel[row * 2 * dimension + dimension + column] = -weight;
    }
  }
  return core.tensor4d(kernel, [size, size, channels, 2 * dimension]);
}

/** Mean of p p^T over all patches p, [D, D]: the covariance about zero, which is the mean of normalised images. */
function patchCovariance(images: core.Tensor4D, size: number): Float64Array {
  const [count, height, width, channels] = images.shape;
  const pixels = images.dataSync();
  const dimension = size * size * channels;
  const sums = new Float64Array(dimension ** 2);
  const patch = new Float64Array(dimension);
  for (let image = 0; image < count; image++) {
    for (let y = 0; y + size <= height; y++) {
      for (let x = 0; x + size <= width; x++) {
        for (let row = 0; row < size; row++) {
          const start = ((image * height + y + row) * width + x) * channels;
          const length = size * channels;
          for (let index = 0; index < length; index++) patch[row * length + index] = at(pixels, start + index);
        }
        for (let i = 0; i < dimension; i++) {
          const value = at(patch, i);
          for (let j = 0; j <= i; j++) sums[i * dimension + j] = at(sums, i * dimension + j) + value * at(patch, j);
        }
      }
    }
  }
  const patches = count * (height - size + 1) * (width - size + 1);
  if (patches <= 0)
    throw new AppError("DATASET_INVALID", `there is no ${size}x${size} patch in images of ${height}x${width}`);
  return sums.map((_, index) => {
    const [i, j] = [Math.floor(index / dimension), index % dimension];
    return at(sums, Math.max(i, j) * dimension + Math.min(i, j)) / patches;
  });
}

/** Eigenvalues, largest first, and eigenvectors in the columns of [D, D], by Jacobi's rotations (Golub and Van Loan, section 8.5). */
export function symmetricEigenvectors(
  matrix: Float64Array,
  dimension: number,
): { values: Float64Array; vectors: Float64Array } {
  const a = matrix.slice();
  const vectors = Float64Array.from(a, (_, index) => (index % (dimension + 1) === 0 ? 1 : 0));
  for (let sweep = 0; sweep < 60 && offDiagonal(a, dimension) > 1e-22 * trace(a, dimension) ** 2; sweep++) {
    for (let p = 0; p < dimension; p++) {
      for (let q = p + 1; q < dimension; q++) rotate(a, vectors, { dimension, p, q });
    }
  }
  const order = Array.from({ length: dimension }, (_, index) => index);
  order.sort((one, other) => at(a, other * (dimension + 1)) - at(a, one * (dimension + 1)));
  return {
    values: Float64Array.from(order, (index) => at(a, index * (dimension + 1))),
    vectors: vectors.map((_, index) => {
      const [row, column] = [Math.floor(index / dimension), index % dimension];
      return at(vectors, row * dimension + (order[column] ?? 0));
    }),
  };
}

/** A rotation in the plane of the axes p and q that makes a[p, q] zero. */
function rotate(
  a: Float64Array,
  vectors: Float64Array,
  { dimension, p, q }: { dimension: number; p: number; q: number },
): void {
  const apq = at(a, p * dimension + q);
  if (apq === 0) return;
  const tau = (at(a, q * dimension + q) - at(a, p * dimension + p)) / (2 * apq);
  const t = Math.sign(tau || 1) / (Math.abs(tau) + Math.hypot(1, tau));
  const cosine = 1 / Math.hypot(1, t);
  const sine = t * cosine;
  const turn = (values: Float64Array, first: number, second: number): void => {
    const [x, y] = [at(values, first), at(values, second)];
    values[first] = cosine * x - sine * y;
    values[second] = sine * x + cosine * y;
  };
  for (let k = 0; k < dimension; k++) turn(a, k * dimension + p, k * dimension + q);
  for (let k = 0; k < dimension; k++) turn(a, p * dimension + k, q * dimension + k);
  for (let k = 0; k < dimension; k++) turn(vectors, k * dimension + p, k * dimension + q);
}

function offDiagonal(a: Float64Array, dimension: number): number {
  return a.reduce((sum, value, index) => (index % (dimension + 1) === 0 ? sum : sum + value * value), 0);
}

function trace(a: Float64Array, dimension: number): number {
  return a.reduce((sum, value, index) => (index % (dimension + 1) === 0 ? sum + value : sum), 0);
}

const at = (values: ArrayLike<number>, index: number): number => values[index] ?? 0;

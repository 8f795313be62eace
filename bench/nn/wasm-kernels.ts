/**
 * What TensorFlow.js's WebAssembly backend needs to train a convolutional network. Two of its kernels are missing or wrong and
 * always supplied. Some others are far slower than what further kernels of its own give when they are put together: with
 * those it can be measured at its best, too.
 */
import "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";

const backendName = "wasm";

type Kernel = (inputs: tf.NamedTensorMap, attributes: never) => tf.Tensor | undefined;

/** The backend has none for the weights of a convolution, and that of max-pooling loses windows without a positive value. */
const needed: Record<string, Kernel> = { Conv2DBackpropFilter: weightGradient, MaxPoolGrad: maxPoolGradient };

/** `undefined` leaves a case to the backend's own kernel. */
const faster: Record<string, Kernel> = {
  Conv2DBackpropInput: inputGradient,
  BatchMatMul: transposedProduct,
  Sum: columnSum,
  Mean: columnMean,
  Tile: tiled,
};

/** "own": the backend's own kernels where it has right ones. "fastest": those of this file. */
export type KernelChoice = "own" | "fastest";

let choice: KernelChoice = "fastest";

/** Says which kernels work from now on. */
export function chooseKernels(next: KernelChoice): void {
  choice = next;
}

/** Makes WebAssembly the backend of TensorFlow.js, with the kernels of this file beside its own. */
export async function startWasmBackend(): Promise<void> {
  // Its own kernels are set up with the backend, so they can only be replaced afterwards.
  await tf.setBackend(backendName);
  for (const [name, kernel] of Object.entries(needed)) replaceKernel(name, kernel, () => true);
  for (const [name, kernel] of Object.entries(faster)) replaceKernel(name, kernel, () => choice === "fastest");
}

function replaceKernel(kernelName: string, kernel: Kernel, isChosen: () => boolean): void {
  const own = tf.getKernel(kernelName, backendName) as tf.KernelConfig | undefined;
  if (own !== undefined) tf.unregisterKernel(kernelName, backendName);
  tf.registerKernel({
    kernelName,
    backendName,
    kernelFunc(params) {
      if (own !== undefined && !isChosen()) return own.kernelFunc(params);
      // What inputs and attributes a kernel gets follows from its name.
      const result = tf.tidy(() => kernel(params.inputs as tf.NamedTensorMap, params.attrs as never) ?? []);
      if (result instanceof tf.Tensor) return result;
      if (own === undefined) throw new Error(`${kernelName} is not supplied for these shapes`);
      return own.kernelFunc(params);
    },
  });
}

interface ConvolutionAttributes {
  readonly strides: number | readonly number[];
  readonly pad: string | number;
}

/** The convolution of the input by the output's gradient, with batch and channels exchanged in both. */
function weightGradient({ x, dy }: tf.NamedTensorMap, attributes: ConvolutionAttributes): tf.Tensor | undefined {
  const { filterShape } = attributes as ConvolutionAttributes & { filterShape: readonly number[] };
  const pad = halfKernel(attributes, filterShape);
  if (x === undefined || dy === undefined || pad === undefined) return undefined;
  const images = tf.transpose(x, [3, 1, 2, 0]) as tf.Tensor4D;
  const kernel = tf.transpose(dy, [1, 2, 0, 3]) as tf.Tensor4D;
  return tf.transpose(tf.conv2d(images, kernel, 1, pad), [1, 2, 0, 3]);
}

/** The convolution of the output's gradient by the weights turned by 180 degrees, with their channels exchanged. */
function inputGradient({ dy, filter }: tf.NamedTensorMap, attributes: ConvolutionAttributes): tf.Tensor | undefined {
  if (dy === undefined || filter === undefined) return undefined;
  const pad = halfKernel(attributes, filter.shape);
  if (pad === undefined) return undefined;
  const turned = tf.transpose(tf.reverse(filter, [0, 1]), [0, 1, 3, 2]) as tf.Tensor4D;
  return tf.conv2d(dy as tf.Tensor4D, turned, 1, pad);
}

type Padding = [[number, number], [number, number], [number, number], [number, number]];

/**
 * The padding that keeps the size, where that is what the convolution does: odd square kernels, stride 1. Written out: of a single
 * number TensorFlow.js computes the output's width as if the kernel were as wide as it is high.
 */
function halfKernel({ strides, pad }: ConvolutionAttributes, filterShape: readonly number[]): Padding | undefined {
  const [height = 0, width = 0] = filterShape;
  const isDense = [strides].flat().every((stride) => stride === 1);
  if (pad !== "same" || !isDense || height !== width || height % 2 === 0) return undefined;
  const half = (height - 1) / 2;
  return [
    [0, 0],
    [half, half],
    [half, half],
    [0, 0],
  ];
}

interface PoolingAttributes {
  readonly filterSize: number | readonly number[];
  readonly strides: number | readonly number[];
}

/** Of windows of 2x2 side by side. Where values are equal the gradient goes to each of them, not to the first. */
function maxPoolGradient(
  { dy, input, output }: tf.NamedTensorMap,
  attributes: PoolingAttributes,
): tf.Tensor | undefined {
  if (dy === undefined || input === undefined || output === undefined) return undefined;
  const sizes = [attributes.filterSize, attributes.strides].flat();
  if (!sizes.every((size) => size === 2)) throw new Error("the gradient of max-pooling is supplied for 2x2 only");
  const isBelow = tf.step(tf.sub(doubled(output, input.shape), input));
  return tf.mul(tf.sub(1, isBelow), doubled(dy, input.shape));
}

/** Every pixel four times. */
function doubled(x: tf.Tensor, to: readonly number[]): tf.Tensor {
  const [, , width = 0, channels = 0] = x.shape;
  const pixels = tf.reshape(x, [-1, channels]);
  const rows = tf.reshape(tf.concat([pixels, pixels], 1), [-1, 2 * width * channels]);
  return tf.reshape(tf.concat([rows, rows], 1), [...to]);
}

interface ProductAttributes {
  readonly transposeA: boolean;
  readonly transposeB: boolean;
}

/** A product whose factors are transposed first. */
function transposedProduct(
  { a, b }: tf.NamedTensorMap,
  { transposeA, transposeB }: ProductAttributes,
): tf.Tensor | undefined {
  if (a === undefined || b === undefined || !(transposeA || transposeB)) return undefined;
  const swapLast = (tensor: tf.Tensor): tf.Tensor => {
    const axes = tensor.shape.map((_, axis) => axis);
    return tf.transpose(tensor, [...axes.slice(0, -2), ...axes.slice(-2).reverse()]);
  };
  return tf.matMul(transposeA ? swapLast(a) : a, transposeB ? swapLast(b) : b);
}

interface ReductionAttributes {
  /** Missing for all axes. */
  readonly axis?: number | readonly number[] | null;
  readonly keepDims?: boolean;
}

/** Average pooling with the whole matrix as its window, for the mean over all axes but the last. */
function columnMean({ x }: tf.NamedTensorMap, { axis, keepDims }: ReductionAttributes): tf.Tensor | undefined {
  if (x === undefined || axis === undefined || axis === null) return undefined;
  const last = x.rank - 1;
  const axes = [axis].flat().map((each) => (each < 0 ? each + x.rank : each));
  if (x.dtype !== "float32" || last === 0 || axes.length !== last || axes.includes(last)) return undefined;
  const columns = x.shape[last] ?? 1;
  const rows = x.size / columns;
  const mean = tf.avgPool(tf.reshape(x, [1, rows, 1, columns]) as tf.Tensor4D, [rows, 1], 1, "valid");
  return tf.reshape(mean, keepDims ? [...x.shape.slice(0, -1).fill(1), columns] : [columns]);
}

function columnSum(inputs: tf.NamedTensorMap, attributes: ReductionAttributes): tf.Tensor | undefined {
  const mean = columnMean(inputs, attributes);
  return mean === undefined ? undefined : tf.mul(mean, (inputs.x?.size ?? 1) / mean.size);
}

/** A vector along the last axis as a sum with zeros, which broadcasts it. */
function tiled({ x }: tf.NamedTensorMap, { reps }: { readonly reps: readonly number[] }): tf.Tensor | undefined {
  if (x === undefined || x.dtype !== "float32" || x.size !== x.shape.at(-1) || reps.at(-1) !== 1) return undefined;
  return tf.add(tf.zeros([...reps.slice(0, -1), x.size]), x);
}

/**
 * 3x3 convolutions with a quarter of the multiplications: Winograd's minimal filtering F(4x4, 3x3), as in Lavin and Gray 2016,
 * arXiv 1509.09308. Tiles of 4x4 outputs come from tiles of 6x6 inputs that overlap by two. In one dimension, with input tile d
 * and kernel g, the outputs are A^T [(G g) * (B^T d)], where * goes element by element: 6 multiplications instead of 12. Summed
 * over channels, each of the 6x6 elements is a matrix product of its own.
 *
 * All tiles of a row are transformed at once, by a matrix with a copy of B or A for each tile: the overlap, the padding and a last tile
 * that is not full are in its zeros. So a convolution is five matrix products and nothing else. Its derivative is the same products
 * backwards, each with the transposed matrix.
 */
import type { Graph, Value } from "../onnx/graph.ts";
import { add, gemm, matMul, reduce, reshape, transpose, type Window, windowCount } from "../onnx/operators.ts";
import { elementCount, fixed } from "../onnx/shape.ts";
import type { ConvolutionOperands, DifferentiableConvolution } from "./direct-convolution.ts";

/** Outputs and inputs of a tile, along one axis. */
const tileOutputs = 4;
const tileInputs = 6;
const tileElements = tileInputs ** 2;

/** Of the points 0, 1, -1, 2, -2 and infinity. */
const inputMatrix = [
  [4, 0, -5, 0, 1, 0],
  [0, -4, -4, 1, 1, 0],
  [0, 4, -4, -1, 1, 0],
  [0, -2, -1, 2, 1, 0],
  [0, 2, -1, -2, 1, 0],
  [0, 4, 0, -5, 0, 1],
];
const kernelMatrix = [
  [1 / 4, 0, 0],
  [-1 / 6, -1 / 6, -1 / 6],
  [-1 / 6, 1 / 6, -1 / 6],
  [1 / 24, 1 / 12, 1 / 6],
  [1 / 24, -1 / 12, 1 / 6],
  [0, 0, 1],
];
const outputMatrix = [
  [1, 0, 0, 0],
  [1, 1, 1, 1],
  [1, -1, 1, -1],
  [1, 2, 4, 8],
  [1, -2, 4, -8],
  [0, 0, 0, 1],
];

/**
 * Whether the window is one that this file has, and the arithmetic is so much less than a direct convolution's that it pays for
 * what is moved to and fro. Along an axis, transforming multiplies each pixel with its whole row, so few channels do not pay, and the less
 * the larger the image is. Where the tiles of a step would be too large to keep for the way back, the answer is no as well.
 */
export function isWinogradFaster({ x, kernel }: ConvolutionOperands, window: Window): boolean {
  const { strides, dilations } = window;
  if ([...strides, ...dilations].some((length) => length !== 1)) return false;
  if (window.kernel.some((length) => length !== 3)) return false;
  const [n, channels, height, width] = x.shape.map(fixed) as [number, number, number, number];
  const kernels = fixed(kernel.shape[0]);
  const [rows, columns] = [windowCount(height, window, 0), windowCount(width, window, 1)];
  const [tall, wide] = [tileInputs * tileCount(rows), tileInputs * tileCount(columns)];
  if (n * channels * tall * wide > mostElements) return false;
  const direct = 9 * channels * kernels * rows * columns;
  if (n * direct < fewestProducts) return false;
  const products = channels * kernels * tall * wide;
  const transforms = (channels * height * (width + tall) + kernels * rows * (tall + columns)) * wide;
  return products + transforms < worthwhile * direct;
}

/** Share of a direct convolution's multiplications up to which it is worthwhile: `small` and `resnet9` are fastest with it. */
const worthwhile = 0.9;

/** Multiplications of a direct convolution that takes no time worth saving: there the larger rounding is all one would get. */
const fewestProducts = 2 ** 21;

/** Of the tiles of one convolution: 128 MB in float32. */
const mostElements = 2 ** 25;

const tileCount = (outputs: number): number => Math.ceil(outputs / tileOutputs);

/** The convolution of a training step; N is fixed. Of use where `isWinogradFaster`, and wrong for other windows than it accepts. */
export function winogradConvolution(
  graph: Graph,
  { x, kernel, bias }: ConvolutionOperands,
  window: Window,
): DifferentiableConvolution {
  const [n, channels, height, width] = x.shape.map(fixed) as [number, number, number, number];
  const kernels = fixed(kernel.shape[0]);
  const [top, left] = window.pads;
  const [rows, columns] = [windowCount(height, window, 0), windowCount(width, window, 1)];
  const [tall, wide] = [tileCount(rows), tileCount(columns)];
  const inputs: Transform = {
    alongRows: axisMatrix(graph, inputMatrix, { length: height, tiles: tall, pad: top, outer: "tile" }),
    alongColumns: axisMatrix(graph, inputMatrix, { length: width, tiles: wide, pad: left, outer: "element" }),
  };
  const outputs: Transform = {
    alongRows: axisMatrix(graph, outputMatrix, { length: rows, tiles: tall, pad: 0, outer: "tile" }),
    alongColumns: axisMatrix(graph, outputMatrix, { length: columns, tiles: wide, pad: 0, outer: "element" }),
  };
  const kernelTransform = kernelTransformMatrix(graph);
  /** For each row of tiles and each of the 36 elements a matrix of its own, [pixels, features]. */
  const asMatrices = (tiles: Value, features: number): Value =>
    reshape(graph, tiles, [tall, tileElements, wide * n, features]);

  const flatKernel = reshape(graph, kernel, [kernels * channels, elementCount(window.kernel)]);
  const flatU = gemm(graph, kernelTransform, flatKernel, { transposeRight: true });
  const u = reshape(graph, flatU, [tileElements, kernels, channels]);
  const v = asMatrices(toTiles(graph, x, inputs), channels);
  const m = matMul(graph, v, transpose(graph, u, [0, 2, 1]));
  const output = fromTiles(graph, m, { transform: outputs, n });
  return {
    output: bias === undefined ? output : add(graph, output, reshape(graph, bias, [kernels, 1, 1])),
    backward(gradient, wantsInput) {
      const dm = asMatrices(toTiles(graph, gradient, outputs), kernels);
      const products = matMul(graph, transpose(graph, dm, [0, 1, 3, 2]), v);
      // A sum over one row of tiles would be a copy.
      const du = tall === 1 ? products : reduce(graph, "ReduceSum", products, [0]);
      const flatDu = reshape(graph, du, [tileElements, kernels * channels]);
      return {
        kernel: reshape(graph, gemm(graph, flatDu, kernelTransform, { transposeLeft: true }), kernel.shape),
        x: wantsInput ? fromTiles(graph, matMul(graph, dm, u), { transform: inputs, n }) : undefined,
      };
    },
  };
}

/** How images of one size become tiles: matrices [elements of all tiles, length] for the axes H and W. */
interface Transform {
  readonly alongRows: Value;
  readonly alongColumns: Value;
}

/**
 * Images [N, C, H, W] as tiles [elements along H, elements along W, N C]. Each product contracts the images' innermost axis and
 * puts what comes of it outermost, so that nothing has to be transposed.
 */
function toTiles(graph: Graph, images: Value, { alongRows, alongColumns }: Transform): Value {
  const contract = (value: Value, matrix: Value): Value => {
    const length = fixed(matrix.shape[1]);
    const flat = reshape(graph, value, [elementCount(value.shape) / length, length]);
    return gemm(graph, matrix, flat, { transposeRight: true });
  };
  return contract(contract(images, alongColumns), alongRows);
}

/** The transposed of `toTiles`: tiles [..., N pixels, features] as images [N, features, H, W]. */
function fromTiles(graph: Graph, tiles: Value, { transform, n }: { transform: Transform; n: number }): Value {
  const { alongRows, alongColumns } = transform;
  const contract = (value: Value, matrix: Value): Value => {
    const length = fixed(matrix.shape[0]);
    const flat = reshape(graph, value, [length, elementCount(value.shape) / length]);
    return gemm(graph, flat, matrix, { transposeLeft: true });
  };
  const images = contract(contract(tiles, alongRows), alongColumns);
  return reshape(graph, images, [
    n,
    fixed(tiles.shape.at(-1)),
    fixed(alongRows.shape[1]),
    fixed(alongColumns.shape[1]),
  ]);
}

interface AxisOptions {
  /** Pixels along the axis. */
  readonly length: number;
  readonly tiles: number;
  /** Pixels by which the first tile begins before the image. */
  readonly pad: number;
  /** What the rows of the matrix are sorted by first. */
  readonly outer: "tile" | "element";
}

/** [elements of all tiles, pixels]: for each tile a copy of the tile's matrix, moved to the pixels where it lies. */
function axisMatrix(graph: Graph, tileMatrix: readonly (readonly number[])[], options: AxisOptions): Value {
  const { length, tiles, pad, outer } = options;
  const values = new Float64Array(tiles * tileInputs * length);
  for (let tile = 0; tile < tiles; tile++) {
    for (const [element, factors] of tileMatrix.entries()) {
      const row = outer === "tile" ? tile * tileInputs + element : element * tiles + tile;
      for (const [index, factor] of factors.entries()) {
        const pixel = tile * tileOutputs + index - pad;
        if (pixel >= 0 && pixel < length) values[row * length + pixel] = factor;
      }
    }
  }
  return graph.tensor("tiles", graph.float, [tiles * tileInputs, length], values);
}

/** G along both axes of a kernel at once: [36, 9]. */
function kernelTransformMatrix(graph: Graph): Value {
  const values = kernelMatrix.flatMap((above) =>
    kernelMatrix.flatMap((beside) => above.flatMap((row) => beside.map((column) => row * column))),
  );
  return graph.tensor("kernelTransform", graph.float, [tileElements, values.length / tileElements], values);
}

/**
 * Forward passes in plain float64, to take finite differences of where ONNX Runtime calculates in float32 only. They share
 * nothing with the compiler: the padding too is worked out again.
 */
import type { LayerNode } from "../../../lib/nn/layers/definition.ts";

type Arrays = Readonly<Record<string, ArrayLike<number>>>;
type Reference = (feeds: Arrays, node: LayerNode) => Float64Array;
type Images = { readonly values: ArrayLike<number>; readonly shape: readonly number[] };

/** A function of one number, applied to each element of the layer's input. */
export const elementWiseReference =
  (f: (x: number) => number): Reference =>
  ({ x0 = [] }) =>
    Float64Array.from(x0, f);

/** x P(x), P being the distribution function of the standard normal distribution. */
export const gelu = (x: number): number => (x * (1 + erf(x / Math.SQRT2))) / 2;

/** The series with positive terms only, 2 / sqrt(pi) exp(-x^2) sum(2^n x^(2n+1) / (2n+1)!!), exact to rounding up to |x| = 6. */
function erf(x: number): number {
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

export const convolutionReference: Reference = (feeds, node) =>
  convolve(input(feeds, node), { node, kernel: feeds.kernel, bias: feeds.bias, groups: 1 }).values as Float64Array;

export const depthwiseReference: Reference = (feeds, node) => {
  const [groups = 1] = node.inputShapes[0] ?? [];
  const kernels = { node, kernel: feeds.depthwise_kernel, bias: feeds.bias, groups };
  return convolve(input(feeds, node), kernels).values as Float64Array;
};

export const separableReference: Reference = (feeds, node) => {
  const [groups = 1] = node.inputShapes[0] ?? [];
  const between = convolve(input(feeds, node), { node, kernel: feeds.depthwise_kernel, groups });
  const config = { kernelSize: [1, 1], strides: [1, 1], padding: "valid" };
  const pointwise = { node: { config }, kernel: feeds.pointwise_kernel, bias: feeds.bias, groups: 1 };
  return convolve(between, pointwise).values as Float64Array;
};

/** A number from the pixels in each window, padding left out. */
const pooling =
  (combine: (pixels: readonly number[]) => number): Reference =>
  (feeds, node) => {
    const { values, shape } = input(feeds, node);
    const [n = 0, channels = 0, height = 0, width = 0] = shape;
    const { rows, columns } = windows(node.config, shape, "poolSize");
    return Float64Array.from({ length: n * channels * rows.length * columns.length }, (_, index) => {
      const plane = Math.floor(index / (rows.length * columns.length)) * height * width;
      const ys = rows[Math.floor(index / columns.length) % rows.length]?.filter((y) => y >= 0) ?? [];
      const xs = columns[index % columns.length]?.filter((x) => x >= 0) ?? [];
      return combine(ys.flatMap((y) => xs.map((x) => values[plane + y * width + x] ?? 0)));
    });
  };

export const averagePoolingReference = pooling(
  (pixels) => pixels.reduce((sum, pixel) => sum + pixel, 0) / pixels.length,
);

export const maxPoolingReference = pooling((pixels) => Math.max(...pixels));

/** As max-pooling by a window of the whole image. */
export const globalMaxPoolingReference: Reference = (feeds, node) => {
  const [, height = 0, width = 0] = node.inputShapes[0] ?? [];
  const config = { poolSize: [height, width], strides: [1, 1], padding: "valid" };
  return maxPoolingReference(feeds, { ...node, config });
};

/** The product with a mask that is given. */
export const maskReference: Reference = ({ x0 = [], mask = [] }) =>
  Float64Array.from(x0, (x, index) => x * (mask[index] ?? 0));

const input = ({ x0 = [] }: Arrays, node: LayerNode): Images => {
  const [shape = []] = node.inputShapes;
  return { values: x0, shape: [x0.length / shape.reduce((product, length) => product * length, 1), ...shape] };
};

interface Kernels {
  readonly node: Pick<LayerNode, "config">;
  readonly kernel: ArrayLike<number> | undefined;
  readonly bias?: ArrayLike<number> | undefined;
  readonly groups: number;
}

/** Images [N, C, H, W] with kernels [K, C / groups, kh, kw], each of which sees the channels of its group. */
function convolve({ values, shape }: Images, { node, kernel = [], bias, groups }: Kernels): Images {
  const [n = 0, channels = 0, height = 0, width = 0] = shape;
  const { rows, columns } = windows(node.config, shape, "kernelSize");
  const [perGroup, area] = [channels / groups, (rows[0]?.length ?? 0) * (columns[0]?.length ?? 0)];
  const kernels = kernel.length / (perGroup * area);
  const result: number[] = [];
  for (let image = 0; image < n; image++) {
    for (let k = 0; k < kernels; k++) {
      const first = image * channels + Math.floor(k / (kernels / groups)) * perGroup;
      for (const ys of rows) {
        for (const xs of columns) {
          let sum = bias?.[k] ?? 0;
          for (let c = 0; c < perGroup; c++) {
            let tap = (k * perGroup + c) * area;
            for (const y of ys) {
              for (const x of xs) {
                const inside = y >= 0 && x >= 0;
                if (inside) sum += (values[((first + c) * height + y) * width + x] ?? 0) * (kernel[tap] ?? 0);
                tap++;
              }
            }
          }
          result.push(sum);
        }
      }
    }
  }
  return { values: Float64Array.from(result), shape: [n, kernels, rows.length, columns.length] };
}

/** The rows and the columns that each window covers, -1 where it covers padding. */
function windows(config: Readonly<Record<string, unknown>>, shape: readonly number[], sizeKey: string) {
  const [, , height = 0, width = 0] = shape;
  const pair = (key: string): readonly number[] => (config[key] as number[] | undefined) ?? [1, 1];
  const along = (length: number, axis: number): number[][] => {
    const [size = 1, stride = 1, dilation = 1] = [sizeKey, "strides", "dilationRate"].map((key) => pair(key)[axis]);
    const span = (size - 1) * dilation + 1;
    const same = config.padding === "same";
    const count = same ? Math.ceil(length / stride) : Math.floor((length - span) / stride) + 1;
    const before = same ? Math.floor(Math.max((count - 1) * stride + span - length, 0) / 2) : 0;
    return Array.from({ length: count }, (_, window) =>
      Array.from({ length: size }, (__, tap) => {
        const position = window * stride + tap * dilation - before;
        return position < length ? position : -1;
      }),
    );
  };
  return { rows: along(height, 0), columns: along(width, 1) };
}

/**
 * ONNX operators as functions that know the shape of their result. Semantics:
 * https://github.com/onnx/onnx/blob/main/docs/Operators.md
 */
import { type Attributes, type Graph, single, type Value } from "./graph.ts";
import {
  broadcast,
  type Dimension,
  elementCount,
  fixed,
  formatShape,
  isSameShape,
  type Shape,
  shapeError,
} from "./shape.ts";
import { dataTypes, type ElementType } from "./tensor-type.ts";

type BinaryOperator = "Add" | "Sub" | "Mul" | "Div" | "Max";
type UnaryOperator = "Relu" | "Sqrt" | "Reciprocal" | "Exp" | "Elu" | "Erf" | "Sigmoid" | "Tanh";
type Comparison = "Equal" | "Greater";
type Reduction = "ReduceSum" | "ReduceMean";

/** Element-wise, with broadcasting. */
export function binary(graph: Graph, operator: BinaryOperator, left: Value, right: Value): Value {
  return one(graph, operator, [left, right], broadcast(left.shape, right.shape), left.type);
}

export const add = (graph: Graph, left: Value, right: Value): Value => binary(graph, "Add", left, right);
export const subtract = (graph: Graph, left: Value, right: Value): Value => binary(graph, "Sub", left, right);
export const multiply = (graph: Graph, left: Value, right: Value): Value => binary(graph, "Mul", left, right);
export const divide = (graph: Graph, left: Value, right: Value): Value => binary(graph, "Div", left, right);
export const maximum = (graph: Graph, left: Value, right: Value): Value => binary(graph, "Max", left, right);

/** Multiplies by a number. */
export const scale = (graph: Graph, value: Value, factor: number): Value =>
  factor === 1 ? value : multiply(graph, value, graph.constant(factor));

/** Element-wise function of one value. */
export function unary(graph: Graph, operator: UnaryOperator, value: Value): Value {
  return one(graph, operator, [value], value.shape, value.type);
}

/** Element-wise comparison, as bool. */
export function compare(graph: Graph, operator: Comparison, left: Value, right: Value): Value {
  return one(graph, operator, [left, right], broadcast(left.shape, right.shape), "bool");
}

/** Converts the element type; nothing to do where it is right already. */
export function cast(graph: Graph, value: Value, type: ElementType): Value {
  if (value.type === type) return value;
  return one(graph, "Cast", [value], value.shape, type, { to: dataTypes[type] });
}

/** Same elements, other shape. At most one axis may be symbolic, and must be in both shapes. */
export function reshape(graph: Graph, value: Value, shape: Shape): Value {
  if (isSameShape(value.shape, shape)) return value;
  const numeric = (dimensions: Shape) => elementCount(dimensions.filter((dimension) => typeof dimension === "number"));
  if (numeric(value.shape) !== numeric(shape)) {
    throw shapeError(`cannot reshape ${formatShape(value.shape)} to ${formatShape(shape)}`);
  }
  const target = graph.integers(shape.map((dimension) => (typeof dimension === "number" ? dimension : -1)));
  return one(graph, "Reshape", [value, target], shape, value.type);
}

/** Axis i of the result is axis `permutation[i]` of the value. */
export function transpose(graph: Graph, value: Value, permutation: readonly number[]): Value {
  const shape = permutation.map((axis) => dimensionOf(value, axis));
  return one(graph, "Transpose", [value], shape, value.type, { perm: permutation });
}

/** Matrix product over the last two axes; the axes before them broadcast. */
export function matMul(graph: Graph, left: Value, right: Value): Value {
  const [m, inner] = [dimensionOf(left, left.shape.length - 2), dimensionOf(left, left.shape.length - 1)];
  const [rows, n] = [dimensionOf(right, right.shape.length - 2), dimensionOf(right, right.shape.length - 1)];
  if (inner !== rows) {
    throw shapeError(`cannot multiply matrices ${formatShape(left.shape)} and ${formatShape(right.shape)}`);
  }
  const batch = broadcast(left.shape.slice(0, -2), right.shape.slice(0, -2));
  return one(graph, "MatMul", [left, right], [...batch, m, n], left.type);
}

/** Product of two matrices, either of them transposed on the way at no cost. */
export function gemm(
  graph: Graph,
  left: Value,
  right: Value,
  { transposeLeft = false, transposeRight = false }: { transposeLeft?: boolean; transposeRight?: boolean },
): Value {
  const [m, inner] = transposeLeft ? left.shape.toReversed() : left.shape;
  const [rows, n] = transposeRight ? right.shape.toReversed() : right.shape;
  if (left.shape.length !== 2 || right.shape.length !== 2 || inner !== rows) {
    throw shapeError(`cannot multiply matrices ${formatShape(left.shape)} and ${formatShape(right.shape)}`);
  }
  const attributes = { transA: Number(transposeLeft), transB: Number(transposeRight) };
  return one(graph, "Gemm", [left, right], [m ?? 0, n ?? 0], left.type, attributes);
}

/** Joins values along an axis. */
export function concat(graph: Graph, values: readonly Value[], axis: number): Value {
  const first = single(values);
  const length = values.reduce((sum, value) => sum + fixed(value.shape[axis]), 0);
  return one(graph, "Concat", values, first.shape.with(axis, length), first.type, { axis });
}

/** The window `[starts, ends)` of some axes, each `steps`-th element. */
export function slice(
  graph: Graph,
  value: Value,
  window: { axes: readonly number[]; starts: readonly number[]; ends: readonly number[]; steps?: readonly number[] },
): Value {
  const { axes, starts, ends, steps = axes.map(() => 1) } = window;
  const shape = value.shape.map((dimension, axis) => {
    const at = axes.indexOf(axis);
    if (at < 0) return dimension;
    return Math.ceil(((ends[at] ?? 0) - (starts[at] ?? 0)) / (steps[at] ?? 1));
  });
  if (isSameShape(value.shape, shape)) return value;
  const inputs = [value, graph.integers(starts), graph.integers(ends), graph.integers(axes), graph.integers(steps)];
  return one(graph, "Slice", inputs, shape, value.type);
}

/** Images turned by 180 degrees: the last two axes backwards. */
export const turnImages = (graph: Graph, value: Value): Value => reverse(graph, value, [2, 3]);

/** Images with left and right exchanged. */
export const mirrorImages = (graph: Graph, value: Value): Value => reverse(graph, value, [3]);

function reverse(graph: Graph, value: Value, axes: readonly number[]): Value {
  const backwards = graph.integers(axes.map(() => -1));
  // In ONNX a slice that runs backwards to the very first element ends at any number below minus the length.
  const ends = graph.integers(axes.map(() => -(2 ** 31)));
  return one(graph, "Slice", [value, backwards, ends, graph.integers(axes), backwards], value.shape, value.type);
}

/** Zeros around two axes. Default: the last two of four. */
export function padImages(graph: Graph, value: Value, pads: Pads, axes: readonly [number, number] = [2, 3]): Value {
  if (isNoPadding(pads)) return value;
  const around = value.shape.map((_, axis) => {
    const at = axes.indexOf(axis);
    return at < 0 ? [0, 0] : [pads[at] ?? 0, pads[at + 2] ?? 0];
  });
  const shape = value.shape.map((length, axis) => {
    const [before = 0, after = 0] = around[axis] ?? [];
    return before + after === 0 ? length : fixed(length) + before + after;
  });
  const ends = [0, 1].flatMap((end) => around.map((pair) => pair[end] ?? 0));
  return one(graph, "Pad", [value, graph.integers(ends)], shape, value.type);
}

/** Reduces some axes, which disappear unless `keep` is set. */
export function reduce(graph: Graph, operator: Reduction, value: Value, axes: readonly number[], keep = false): Value {
  const shape = keep
    ? value.shape.map((dimension, axis) => (axes.includes(axis) ? 1 : dimension))
    : value.shape.filter((_, axis) => !axes.includes(axis));
  const keepdims = keep ? 1 : 0;
  // In operator set 17 the axes of ReduceSum are an input already, those of the others still an attribute.
  if (operator === "ReduceSum") {
    return one(graph, operator, [value, graph.integers(axes)], shape, value.type, { keepdims });
  }
  return one(graph, operator, [value], shape, value.type, { axes, keepdims });
}

/** Softmax over an axis. Default: the last one. */
export function softmax(graph: Graph, value: Value, axis = -1): Value {
  return one(graph, "Softmax", [value], value.shape, value.type, { axis });
}

/** Logarithm of the softmax over the last axis, without the rounding of log(softmax(x)). */
export function logSoftmax(graph: Graph, value: Value): Value {
  return one(graph, "LogSoftmax", [value], value.shape, value.type, { axis: -1 });
}

/** Index of the largest element of the last axis, int64. */
export function argMax(graph: Graph, value: Value): Value {
  return one(graph, "ArgMax", [value], value.shape.slice(0, -1), "int64", { axis: -1, keepdims: 0 });
}

/** Zero rows above, to the left, below, to the right: the order of ONNX's `pads`. */
export type Pads = readonly [top: number, left: number, bottom: number, right: number];

const isNoPadding = (pads: Pads): boolean => pads.every((pad) => pad === 0);

/** A window that moves over the rows and columns of an image. */
export interface Window {
  readonly kernel: readonly [height: number, width: number];
  readonly strides: readonly [number, number];
  readonly dilations: readonly [number, number];
  readonly pads: Pads;
}

/**
 * Convolution of [N, C, H, W] with [K, C / group, kh, kw] and an optional bias [K], to [N, K, H', W']. With groups, default 1,
 * the first K / group kernels see the first C / group channels only, and so on.
 */
export function convolution(
  graph: Graph,
  inputs: { x: Value; kernel: Value; bias?: Value | undefined; group?: number },
  window: Window,
): Value {
  const { x, kernel, bias, group = 1 } = inputs;
  const [n = "N", channels, height, width] = x.shape;
  if (fixed(channels) !== fixed(kernel.shape[1]) * group) {
    throw shapeError(
      `${group} groups of kernels ${formatShape(kernel.shape)} do not fit images ${formatShape(x.shape)}`,
    );
  }
  const [rows, columns] = [windowCount(fixed(height), window, 0), windowCount(fixed(width), window, 1)];
  const attributes = { ...convolutionAttributes(window), ...(group > 1 && { group }) };
  return one(graph, "Conv", [x, kernel, bias], [n, dimensionOf(kernel, 0), rows, columns], x.type, attributes);
}

/** How often a window fits along rows (0) or columns (1) of the given length. */
export function windowCount(length: number, window: Window, axis: 0 | 1): number {
  const span = (window.kernel[axis] - 1) * window.dilations[axis] + 1;
  const count =
    Math.floor((length + window.pads[axis] + window.pads[(axis + 2) as 2 | 3] - span) / window.strides[axis]) + 1;
  if (count < 1) throw shapeError(`a window of ${span} does not fit into ${length} rows or columns`);
  return count;
}

/** The gradient of a convolution to its input of the given shape, from the gradient to its output. */
export function convolutionTranspose(
  graph: Graph,
  inputs: { gradient: Value; kernel: Value; shape: Shape; group?: number },
  window: Window,
): Value {
  const { gradient, kernel, shape, group = 1 } = inputs;
  const rest = ([0, 1] as const).map((axis) => {
    const span = (window.kernel[axis] - 1) * window.dilations[axis] + 1;
    const covered = (fixed(gradient.shape[axis + 2]) - 1) * window.strides[axis] + span;
    return fixed(shape[axis + 2]) + window.pads[axis] + window.pads[(axis + 2) as 2 | 3] - covered;
  });
  const attributes = { ...convolutionAttributes(window), output_padding: rest, group };
  return one(graph, "ConvTranspose", [gradient, kernel], shape, gradient.type, attributes);
}

function convolutionAttributes({ kernel, strides, dilations, pads }: Window): Attributes {
  return { kernel_shape: kernel, strides, dilations, pads };
}

/** Attributes that pooling operators take: they know no dilation before operator set 19. */
export function poolingAttributes({ kernel, strides, pads }: Window): Attributes {
  return { kernel_shape: kernel, strides, pads };
}

function dimensionOf(value: Value, axis: number): Dimension {
  const dimension = value.shape[axis];
  if (dimension === undefined)
    throw shapeError(`${value.name} of shape ${formatShape(value.shape)} has no axis ${axis}`);
  return dimension;
}

function one(
  graph: Graph,
  operator: string,
  inputs: readonly (Value | undefined)[],
  shape: Shape,
  type: ElementType,
  attributes: Attributes = {},
): Value {
  return single(graph.node(operator, inputs, [{ shape, type }], attributes));
}

/** Turning axes of tensors: the Layers API stores convolution kernels as [kh, kw, C, K], ONNX as [K, C, kh, kw]. */

/** Tensor of the given shape with axis i of the result taken from axis `axes[i]`. Exact: elements only move. */
export function permute(values: Float32Array, shape: readonly number[], axes: readonly number[]): Float32Array {
  const strides = rowMajorStrides(shape);
  const turned = axes.map((axis) => ({ length: shape[axis] ?? 1, stride: strides[axis] ?? 1 }));
  const result = new Float32Array(values.length);
  const position = new Uint32Array(axes.length);
  let source = 0;
  for (let index = 0; index < result.length; index++) {
    result[index] = values[source] ?? 0;
    for (let axis = axes.length - 1; axis >= 0; axis--) {
      const { length, stride } = turned[axis] ?? { length: 1, stride: 1 };
      source += stride;
      position[axis] = (position[axis] ?? 0) + 1;
      if ((position[axis] ?? 0) < length) break;
      source -= length * stride;
      position[axis] = 0;
    }
  }
  return result;
}

/** The axes that undo a permutation. */
export function inverseAxes(axes: readonly number[]): readonly number[] {
  return axes.map((_, axis) => axes.indexOf(axis));
}

function rowMajorStrides(shape: readonly number[]): number[] {
  const strides = shape.map(() => 1);
  for (let axis = shape.length - 2; axis >= 0; axis--)
    strides[axis] = (strides[axis + 1] ?? 1) * (shape[axis + 1] ?? 1);
  return strides;
}

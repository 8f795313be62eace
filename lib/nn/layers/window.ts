/** Windows that move over images, from the options of the Layers API. */
import type { Pads, Window } from "../onnx/operators.ts";
import type { LayerNode } from "./definition.ts";

type Pair = readonly [number, number];

interface WindowSpec {
  readonly kernel: Pair;
  readonly strides: Pair;
  readonly dilations?: Pair;
  readonly padding: "valid" | "same";
  /** Rows and columns of the input. */
  readonly size: Pair;
}

/**
 * The window with its padding in numbers. "same" gives ceil(size / stride) results, and an odd row or column of padding
 * goes to the bottom or right (https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2).
 */
export function windowFromSpec({ kernel, strides, dilations = [1, 1], padding, size }: WindowSpec): Window {
  const total = ([0, 1] as const).map((axis) => {
    if (padding === "valid") return 0;
    const span = (kernel[axis] - 1) * dilations[axis] + 1;
    const count = Math.ceil(size[axis] / strides[axis]);
    return Math.max((count - 1) * strides[axis] + span - size[axis], 0);
  }) as [number, number];
  const before = total.map((pad) => Math.floor(pad / 2)) as [number, number];
  const pads: Pads = [before[0], before[1], total[0] - before[0], total[1] - before[1]];
  return { kernel, strides, dilations, pads };
}

/** The window of a convolution layer, from its options. */
export function convolutionWindow(
  node: LayerNode,
  options: { kernelSize: Pair; strides: Pair; padding: WindowSpec["padding"]; dilationRate: Pair },
): Window {
  const { kernelSize: kernel, strides, padding, dilationRate: dilations } = options;
  return windowFromSpec({ kernel, strides, dilations, padding, size: imageSize(node.inputShapes[0]) });
}

/** Rows and columns of an image shape [C, H, W]. */
export function imageSize(shape: readonly number[] | undefined): Pair {
  const [, height = 0, width = 0] = shape ?? [];
  return [height, width];
}

/** Between the two orders of axes: the Layers API has images as [N, H, W, C], our graphs as [N, C, H, W]. */
import type { Graph, Value } from "../onnx/graph.ts";
import { reshape, transpose } from "../onnx/operators.ts";
import type { Dimension, Shape } from "../onnx/shape.ts";
import { type LayerNode, unsupported } from "./definition.ts";

const isImages = (shape: Shape): boolean => shape.length === 4;

/** Images as the Layers API has them; other values as they are. */
export function toChannelsLast(graph: Graph, value: Value): Value {
  const shape = channelsLastShape(value.shape);
  if (!isImages(value.shape)) return value;
  return isOneOrder(value.shape) ? reshape(graph, value, shape) : transpose(graph, value, [0, 2, 3, 1]);
}

/** A value in the order of the Layers API, given the shape in our order that it is to have. */
export function toChannelsFirst(graph: Graph, value: Value, shape: Shape): Value {
  if (!isImages(shape) || isOneOrder(shape)) return reshape(graph, value, shape);
  return transpose(graph, reshape(graph, value, channelsLastShape(shape)), [0, 3, 1, 2]);
}

function channelsLastShape(shape: Shape): Shape {
  const [n = "N", channels = 1, ...rest] = shape;
  return isImages(shape) ? [n, ...rest, channels] : shape;
}

/** Whether both orders are the same: one channel, or one pixel. */
function isOneOrder([, channels = 1, height = 1, width = 1]: Shape): boolean {
  const isOne = (dimension: Dimension): boolean => dimension === 1;
  return isOne(channels) || (isOne(height) && isOne(width));
}

/** An axis of the node's first input, counted as the Layers API does, as the axis of our value. The batch is none. */
export function channelsFirstAxis(node: LayerNode, axis: number): number {
  const rank = (node.inputShapes[0]?.length ?? 0) + 1;
  const positive = axis < 0 ? axis + rank : axis;
  if (positive < 1 || positive >= rank) throw unsupported(node, `has no axis ${axis} to work on`);
  return rank === 4 ? (positive % 3) + 1 : positive;
}

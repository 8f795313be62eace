/** Layers that join branches: Add, Concatenate. */
import { z } from "zod";
import type { Graph, Value } from "../onnx/graph.ts";
import { add, concat, slice } from "../onnx/operators.ts";
import { fixed, formatShape } from "../onnx/shape.ts";
import { channelsFirstAxis } from "./channel-order.ts";
import { type LayerDefinition, type LayerNode, noFlops, unsupported } from "./definition.ts";
import { readOptions } from "./options.ts";

export const addLayer: LayerDefinition = {
  weights(node) {
    checkAddition(node);
    return [];
  },
  flops: noFlops,
  infer: ({ graph, inputs: [first, ...rest] }) => rest.reduce((sum, value) => add(graph, sum, value), first),
  train: (scope) => ({
    output: addLayer.infer(scope),
    backward: (gradient) => ({ inputs: scope.inputs.map(() => gradient) }),
  }),
};

/** The gradient goes to each input as it is, so none of them may be broadcast. */
function checkAddition(node: LayerNode): void {
  const shapes = node.inputShapes.map(formatShape);
  if (new Set(shapes).size > 1)
    throw unsupported(node, `adds values of one shape only, not of ${shapes.join(" and ")}`);
}

const concatenateOptions = z.object({ axis: z.number().int() });

/** Joins the channels of images or the features of vectors. */
export const concatenateLayer: LayerDefinition = {
  weights(node) {
    checkConcatenation(node);
    return [];
  },
  flops: noFlops,
  infer: ({ graph, inputs }) => concat(graph, inputs, 1),
  train: (scope) => ({
    output: concatenateLayer.infer(scope),
    backward: (gradient) => ({ inputs: parts(scope.graph, gradient, scope) }),
  }),
};

function checkConcatenation(node: LayerNode): void {
  const { axis } = readOptions(node, concatenateOptions);
  const rank = (node.inputShapes[0]?.length ?? 0) + 1;
  if ((rank !== 2 && rank !== 4) || channelsFirstAxis(node, axis) !== 1) {
    throw unsupported(node, `joins channels of images or features of vectors only (axis -1), not axis ${axis}`);
  }
}

/** The gradient's channels, each input's own where it needs them. */
function parts(
  graph: Graph,
  gradient: Value,
  { inputs, needsGradient }: { inputs: readonly Value[]; needsGradient: readonly boolean[] },
): (Value | undefined)[] {
  let end = 0;
  return inputs.map((input, index) => {
    const start = end;
    end += fixed(input.shape[1]);
    return needsGradient[index] ? slice(graph, gradient, { axes: [1], starts: [start], ends: [end] }) : undefined;
  });
}

/** Layers that join branches: Add. */
import { add } from "../onnx/operators.ts";
import { type LayerDefinition, noFlops, noWeights } from "./definition.ts";

export const addLayer: LayerDefinition = {
  weights: noWeights,
  flops: noFlops,
  infer: ({ graph, inputs: [first, ...rest] }) => rest.reduce((sum, value) => add(graph, sum, value), first),
  train: (scope) => ({
    output: addLayer.infer(scope),
    backward: (gradient) => ({ inputs: scope.inputs.map(() => gradient) }),
  }),
};

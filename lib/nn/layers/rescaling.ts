/** Rescaling: scale x + offset, two numbers. */
import { z } from "zod";
import { add, scale } from "../onnx/operators.ts";
import { type LayerDefinition, noFlops } from "./definition.ts";
import { readOptions } from "./options.ts";

const options = z.object({ scale: z.number(), offset: z.number() });

export const rescalingLayer: LayerDefinition = {
  weights(node) {
    readOptions(node, options);
    return [];
  },
  flops: noFlops,
  infer({ graph, node, inputs: [x] }) {
    const { scale: factor, offset } = readOptions(node, options);
    const scaled = scale(graph, x, factor);
    return offset === 0 ? scaled : add(graph, scaled, graph.constant(offset));
  },
  train(scope) {
    const { scale: factor } = readOptions(scope.node, options);
    return {
      output: rescalingLayer.infer(scope),
      backward: (gradient) => ({ inputs: [scale(scope.graph, gradient, factor)] }),
    };
  },
};

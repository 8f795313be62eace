/**
 * Dropout (Srivastava et al. 2014), in its inverted form: kept values grow by 1 / (1 - rate) in training and inference does
 * nothing. The mask is fed at each step, drawn from the training's own generator: ONNX's random operators cannot be resumed
 * from a checkpoint.
 */
import { z } from "zod";
import { multiply } from "../onnx/operators.ts";
import { type LayerDefinition, noFlops } from "./definition.ts";
import { absentOption, readOptions } from "./options.ts";

const options = z.object({ rate: z.number().min(0).lt(1), noiseShape: absentOption });

export const dropoutLayer: LayerDefinition = {
  weights(node) {
    readOptions(node, options);
    return [];
  },
  flops: noFlops,
  infer: ({ inputs: [x] }) => x,
  train({ graph, node, inputs: [x], mask }) {
    const { rate } = readOptions(node, options);
    if (rate === 0) return { output: x, backward: (gradient) => ({ inputs: [gradient] }) };
    const factors = mask(rate);
    return {
      output: multiply(graph, x, factors),
      backward: (gradient) => ({ inputs: [multiply(graph, gradient, factors)] }),
    };
  },
};

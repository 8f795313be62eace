/** Dense: y = x W + b, on vectors. */
import { z } from "zod";
import { named } from "../named.ts";
import { add, matMul, reduce, transpose } from "../onnx/operators.ts";
import { type LayerDefinition, unsupported } from "./definition.ts";
import { biasSpecs, kernelOptions, readOptions } from "./options.ts";

const options = z.object(kernelOptions);

export const denseLayer: LayerDefinition = {
  weights(node) {
    const { kernelRegularizer: l2, ...bias } = readOptions(node, options);
    if (node.inputShapes[0]?.length !== 1) {
      throw unsupported(node, "works on vectors only; put a Flatten before it");
    }
    return [{ name: "kernel", role: "weight", l2 }, ...biasSpecs(bias)];
  },
  flops(node) {
    return 2 * (node.inputShapes[0]?.[0] ?? 0) * (node.outputShape[0] ?? 0);
  },
  infer({ graph, inputs: [x], weights }) {
    const product = matMul(graph, x, named(weights, "kernel"));
    return weights.bias ? add(graph, product, weights.bias) : product;
  },
  train(scope) {
    const { graph, inputs, weights, needsGradient } = scope;
    const [x] = inputs;
    return {
      output: denseLayer.infer(scope),
      backward: (gradient) => ({
        inputs: [
          needsGradient[0] ? matMul(graph, gradient, transpose(graph, named(weights, "kernel"), [1, 0])) : undefined,
        ],
        weights: {
          kernel: matMul(graph, transpose(graph, x, [1, 0]), gradient),
          ...(weights.bias && { bias: reduce(graph, "ReduceSum", gradient, [0]) }),
        },
      }),
    };
  },
};

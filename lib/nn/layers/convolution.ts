/** Conv2D: any kernel, stride, dilation and padding, with or without bias. */
import { z } from "zod";
import { named } from "../named.ts";
import { convolution, reduce, type Window } from "../onnx/operators.ts";
import type { LayerDefinition, LayerNode } from "./definition.ts";
import { directConvolution } from "./direct-convolution.ts";
import { biasSpecs, kernelOptions, pairOption, readOptions, windowOptions } from "./options.ts";
import { convolutionWindow } from "./window.ts";
import { isWinogradFaster, winogradConvolution } from "./winograd.ts";

const options = z.object({ ...kernelOptions, ...windowOptions, kernelSize: pairOption, dilationRate: pairOption });

/** The Layers API has [kh, kw, C, K], ONNX [K, C, kh, kw]. */
export const kernelAxes = [3, 2, 0, 1] as const;

export const convolutionLayer: LayerDefinition = {
  weights(node) {
    const { kernelRegularizer: l2, ...bias } = readOptions(node, options);
    return [{ name: "kernel", role: "weight", axes: kernelAxes, mixesChannels: true, l2 }, ...biasSpecs(bias)];
  },
  flops(node) {
    const [channels = 0] = node.inputShapes[0] ?? [];
    const [kernels = 0, height = 0, width = 0] = node.outputShape;
    const { kernel } = windowOf(node);
    return 2 * kernels * channels * kernel[0] * kernel[1] * height * width;
  },
  infer({ graph, node, inputs: [x], weights }) {
    return convolution(graph, { x, kernel: named(weights, "kernel"), bias: weights.bias }, windowOf(node));
  },
  train({ graph, node, inputs: [x], weights, needsGradient }) {
    const window = windowOf(node);
    const operands = { x, kernel: named(weights, "kernel"), bias: weights.bias };
    const convolve = isWinogradFaster(operands, window) ? winogradConvolution : directConvolution;
    const { output, backward } = convolve(graph, operands, window);
    return {
      output,
      backward(gradient) {
        const { x: toInput, kernel } = backward(gradient, needsGradient[0] === true);
        const bias = weights.bias && reduce(graph, "ReduceSum", gradient, [0, 2, 3]);
        return { inputs: [toInput], weights: { kernel, ...(bias && { bias }) } };
      },
    };
  },
};

const windowOf = (node: LayerNode): Window => convolutionWindow(node, readOptions(node, options));

/** SeparableConv2D: a depthwise convolution without bias and a 1x1 convolution behind it (Chollet 2017, arXiv 1610.02357). */
import { z } from "zod";
import { named } from "../named.ts";
import { convolution, reduce, type Window } from "../onnx/operators.ts";
import { kernelAxes } from "./convolution.ts";
import type { LayerDefinition, LayerNode } from "./definition.ts";
import {
  depthwiseAxes,
  depthwiseConvolution,
  depthwiseInputGradient,
  depthwiseKernelGradient,
} from "./depthwise-convolution.ts";
import { directConvolution } from "./direct-convolution.ts";
import { biasOptions, biasSpecs, pairOption, readOptions, regularizerOption, windowOptions } from "./options.ts";
import { convolutionWindow } from "./window.ts";

const options = z.object({
  ...biasOptions,
  ...windowOptions,
  kernelSize: pairOption,
  dilationRate: pairOption,
  depthwiseRegularizer: regularizerOption,
  pointwiseRegularizer: regularizerOption,
});

const point: Window = { kernel: [1, 1], strides: [1, 1], dilations: [1, 1], pads: [0, 0, 0, 0] };

export const separableConvolutionLayer: LayerDefinition = {
  weights(node) {
    const { depthwiseRegularizer, pointwiseRegularizer, ...bias } = readOptions(node, options);
    return [
      { name: "depthwise_kernel", role: "weight", axes: depthwiseAxes, l2: depthwiseRegularizer },
      { name: "pointwise_kernel", role: "weight", mixesChannels: true, axes: kernelAxes, l2: pointwiseRegularizer },
      ...biasSpecs(bias),
    ];
  },
  flops(node) {
    const [kernels = 0, height = 0, width = 0] = node.outputShape;
    const channels = node.weights.find(({ name }) => name === "pointwise_kernel")?.shape[1] ?? 0;
    const { kernel } = windowOf(node);
    return 2 * height * width * channels * (kernel[0] * kernel[1] + kernels);
  },
  infer({ graph, node, inputs: [x], weights }) {
    const depthwise = depthwiseConvolution(graph, { x, kernel: named(weights, "depthwise_kernel") }, windowOf(node));
    return convolution(graph, { x: depthwise, kernel: named(weights, "pointwise_kernel"), bias: weights.bias }, point);
  },
  train({ graph, node, inputs: [x], weights, needsGradient }) {
    const window = windowOf(node);
    const [depthwise, pointwise] = [named(weights, "depthwise_kernel"), named(weights, "pointwise_kernel")];
    const between = depthwiseConvolution(graph, { x, kernel: depthwise }, window);
    const mixed = directConvolution(graph, { x: between, kernel: pointwise, bias: weights.bias }, point);
    return {
      output: mixed.output,
      backward(gradient) {
        const { x: toBetween = gradient, kernel: toPointwise } = mixed.backward(gradient, true);
        const inner = { x, kernel: depthwise, gradient: toBetween };
        return {
          inputs: [needsGradient[0] ? depthwiseInputGradient(graph, inner, window) : undefined],
          weights: {
            depthwise_kernel: depthwiseKernelGradient(graph, inner, window),
            pointwise_kernel: toPointwise,
            ...(weights.bias && { bias: reduce(graph, "ReduceSum", gradient, [0, 2, 3]) }),
          },
        };
      },
    };
  },
};

const windowOf = (node: LayerNode): Window => convolutionWindow(node, readOptions(node, options));

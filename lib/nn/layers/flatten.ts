/**
 * Flatten. The Layers API flattens [H, W, C], so the axes are turned first: the weights of a Dense layer behind it then mean
 * the same in both worlds, whatever stands between. The copy is small, as networks flatten after their last pooling.
 */
import { reshape, transpose } from "../onnx/operators.ts";
import { type LayerDefinition, noFlops, noWeights } from "./definition.ts";

export const flattenLayer: LayerDefinition = {
  weights: noWeights,
  flops: noFlops,
  infer({ graph, node, inputs: [x] }) {
    const turned = isTrivial(node.inputShapes[0]) ? x : transpose(graph, x, [0, 2, 3, 1]);
    return reshape(graph, turned, [x.shape[0] ?? "N", ...node.outputShape]);
  },
  train(scope) {
    const { graph, node, inputs } = scope;
    const [x] = inputs;
    return {
      output: flattenLayer.infer(scope),
      backward(gradient) {
        const [n = 0, channels = 0, height = 0, width = 0] = x.shape;
        if (isTrivial(node.inputShapes[0])) return { inputs: [reshape(graph, gradient, x.shape)] };
        const images = reshape(graph, gradient, [n, height, width, channels]);
        return { inputs: [transpose(graph, images, [0, 3, 1, 2])] };
      },
    };
  },
};

/** Whether both orders are one: a vector, or images of one pixel. */
function isTrivial(shape: readonly number[] = []): boolean {
  const [, height = 1, width = 1] = shape;
  return height * width === 1;
}

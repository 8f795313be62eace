/** ZeroPadding2D: rows and columns of zeros around images. */
import { z } from "zod";
import { type Pads, padImages, slice } from "../onnx/operators.ts";
import { type LayerDefinition, type LayerNode, noFlops } from "./definition.ts";
import { readOptions } from "./options.ts";
import { imageSize } from "./window.ts";

const side = z.number().int().nonnegative();
const sides = z.tuple([side, side]);
const options = z.object({ padding: z.tuple([sides, sides]), dataFormat: z.literal("channelsLast") });

export const zeroPaddingLayer: LayerDefinition = {
  weights(node) {
    padsOf(node);
    return [];
  },
  flops: noFlops,
  infer: ({ graph, node, inputs: [x] }) => padImages(graph, x, padsOf(node)),
  train(scope) {
    const { graph, node } = scope;
    const [top, left] = padsOf(node);
    const [height, width] = imageSize(node.inputShapes[0]);
    const window = { axes: [2, 3], starts: [top, left], ends: [top + height, left + width] };
    return {
      output: zeroPaddingLayer.infer(scope),
      backward: (gradient) => ({ inputs: [slice(graph, gradient, window)] }),
    };
  },
};

function padsOf(node: LayerNode): Pads {
  const { padding } = readOptions(node, options);
  const [[top, bottom], [left, right]] = padding;
  return [top, left, bottom, right];
}

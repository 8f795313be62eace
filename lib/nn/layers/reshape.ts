/**
 * Flatten and Reshape. Both mean the order of elements that the Layers API has, so that the weights behind them mean the
 * same in both worlds: images are turned to channels last before and from it after.
 */
import { z } from "zod";
import { elementCount, formatShape } from "../onnx/shape.ts";
import { toChannelsFirst, toChannelsLast } from "./channel-order.ts";
import { type LayerDefinition, type LayerNode, noFlops, unsupported } from "./definition.ts";
import { readOptions, requireChannelsLast } from "./options.ts";

const reshapeOptions = z.object({ targetShape: z.array(z.number().int().positive().nullable()) });

export const flattenLayer = reshaping(requireChannelsLast);

export const reshapeLayer = reshaping((node) => {
  const { targetShape } = readOptions(node, reshapeOptions);
  // The Layers API calculates no length for a -1, so no layer with weights can follow it there either.
  if (targetShape.includes(null)) throw unsupported(node, "needs every length of targetShape as a number, without -1");
  if (targetShape.length > 3) throw unsupported(node, "makes values of at most three axes an image");
  // The Layers API compares them only where the number of images is known.
  const [[from = []], to] = [node.inputShapes, node.outputShape];
  if (elementCount(from) === elementCount(to)) return;
  throw unsupported(node, `makes ${formatShape(to)} of ${formatShape(from)}, which has another number of elements`);
});

function reshaping(check: (node: LayerNode) => void): LayerDefinition {
  return {
    weights(node) {
      check(node);
      return [];
    },
    flops: noFlops,
    infer({ graph, node, inputs: [x] }) {
      return toChannelsFirst(graph, toChannelsLast(graph, x), [x.shape[0] ?? "N", ...node.outputShape]);
    },
    train(scope) {
      const { graph, inputs } = scope;
      const [x] = inputs;
      return {
        output: reshaping(check).infer(scope),
        backward: (gradient) => ({ inputs: [toChannelsFirst(graph, toChannelsLast(graph, gradient), x.shape)] }),
      };
    },
  };
}

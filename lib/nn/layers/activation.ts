/** Layers that apply an activation function: Activation, ReLU, LeakyReLU, ELU, Softmax; also the `activation` option of others. */
import { z } from "zod";
import {
  type ActivationFunction,
  boundedRelu,
  elu,
  gelu,
  leakyRelu,
  linear,
  relu,
  sigmoid,
  softmaxOver,
  swish,
  tanh,
} from "./activation-functions.ts";
import { channelsFirstAxis } from "./channel-order.ts";
import { type LayerDefinition, type LayerNode, noFlops, unsupported } from "./definition.ts";
import { readOptions } from "./options.ts";

/**
 * All activation functions by the names of the Layers API. Its gelu_new, an approximation by a tanh that is no faster here, is
 * left out: TensorFlow.js writes a model that has it under a name that it cannot read.
 */
const activationFunctions = {
  elu: () => elu,
  gelu: () => gelu,
  linear: () => linear,
  relu: () => relu,
  relu6: () => boundedRelu(6),
  sigmoid: () => sigmoid,
  softmax: (node: LayerNode) => softmaxOver(channelsFirstAxis(node, -1)),
  swish: () => swish,
  tanh: () => tanh,
} as const satisfies Record<string, (node: LayerNode) => ActivationFunction>;

const names = Object.keys(activationFunctions) as (keyof typeof activationFunctions)[];
const activationOptions = z.object({ activation: z.enum(names) });
const reluOptions = z.object({ maxValue: z.number().positive().nullish() });
const leakyReluOptions = z.object({ alpha: z.number() });
const softmaxOptions = z.object({ axis: z.number().int() });

export const activationLayer = elementWise((node) =>
  activationFunctions[readOptions(node, activationOptions).activation](node),
);

export const reluLayer = elementWise((node) => {
  const { maxValue } = readOptions(node, reluOptions);
  return typeof maxValue === "number" ? boundedRelu(maxValue) : relu;
});

export const leakyReluLayer = elementWise((node) => leakyRelu(readOptions(node, leakyReluOptions).alpha));

export const eluLayer = elementWise(() => elu);

/**
 * Softmax between other layers. At the end of a network it is a part of the loss, and no node of the plan. The Layers API
 * takes axis 1 if none is given, which TensorFlow.js then refuses to calculate for images.
 */
export const softmaxLayer = elementWise((node) => {
  const { axis } = readOptions(node, softmaxOptions);
  const last = channelsFirstAxis(node, -1);
  if (channelsFirstAxis(node, axis) !== last) throw unsupported(node, `works along the last axis (-1), not ${axis}`);
  return softmaxOver(last);
});

function elementWise(functionOf: (node: LayerNode) => ActivationFunction): LayerDefinition {
  return {
    weights(node) {
      functionOf(node);
      return [];
    },
    flops: noFlops,
    infer: ({ graph, node, inputs: [x] }) => functionOf(node).forward(graph, x),
    train({ graph, node, inputs: [x] }) {
      const { forward, backward } = functionOf(node);
      const y = forward(graph, x);
      return { output: y, backward: (gradient) => ({ inputs: [backward(graph, { x, y, gradient })] }) };
    },
  };
}

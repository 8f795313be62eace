/** Walking through a plan layer by layer, with every mistake blamed on the layer that made it. */
import { AppError } from "../errors.ts";
import type { LayerNode } from "./layers/definition.ts";
import type { Value } from "./onnx/graph.ts";
import { formatShape, isSameShape } from "./onnx/shape.ts";
import { inputName, type NetworkPlan } from "./plan.ts";

/** Compiles each node by `compile`, handing it the values it reads; returns the last one's output. */
export function runThrough(
  plan: NetworkPlan,
  input: Value,
  compile: (node: LayerNode, inputs: readonly [Value, ...Value[]]) => Value,
): Value {
  const values = new Map([[inputName, input]]);
  let last = input;
  for (const node of plan.nodes) {
    last = blame(node, () => {
      const [first, ...rest] = node.inputs.map((name) => values.get(name)).filter((value) => value !== undefined);
      if (first === undefined) throw new AppError("INTERNAL", "it reads no other layer");
      return checked(node, compile(node, [first, ...rest]));
    });
    values.set(node.name, last);
  }
  return last;
}

/** Runs `work` and puts the layer's name in front of the message of what it throws. */
export function blame<T>(node: LayerNode, work: () => T): T {
  try {
    return work();
  } catch (thrown) {
    const { code, message, details } = AppError.from(thrown);
    if (details.layer !== undefined) throw thrown;
    throw new AppError(code, `layer ${node.name} (${node.className}): ${message}`, {
      details: { ...details, layer: node.name, className: node.className },
      cause: thrown,
    });
  }
}

/** The compiler's own shape inference must agree with that of TensorFlow.js. */
function checked(node: LayerNode, output: Value): Value {
  if (isSameShape(output.shape.slice(1), node.outputShape)) return output;
  const shapes = `compiles to ${formatShape(output.shape)}, the layer says ${formatShape(["N", ...node.outputShape])}`;
  throw new AppError("INTERNAL", shapes);
}

/** Decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101), shared by the optimisers. */
import type { Graph, Value } from "../onnx/graph.ts";
import { multiply, scale, subtract } from "../onnx/operators.ts";
import type { ParameterUpdate } from "./definition.ts";

/** parameter (1 - learningRate weightDecay); the parameter itself where nothing decays. */
export function decayed(graph: Graph, { parameter, learningRate, weightDecay }: ParameterUpdate): Value {
  if (weightDecay === 0) return parameter;
  return multiply(graph, parameter, subtract(graph, graph.constant(1), scale(graph, learningRate, weightDecay)));
}

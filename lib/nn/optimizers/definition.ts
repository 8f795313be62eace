/** What an optimiser has to tell the compiler. One file in this folder describes one optimiser. */
import type { Graph, Value } from "../onnx/graph.ts";

/** A parameter at the moment of its update. */
export interface ParameterUpdate {
  readonly parameter: Value;
  readonly gradient: Value;
  /** The optimiser's own tensors of this parameter by slot name, of the parameter's shape, zero at the beginning. */
  readonly slots: Readonly<Record<string, Value>>;
  /** The scalars of this step by name. */
  readonly scalars: Readonly<Record<string, Value>>;
  /** The step's learning rate times the factor of the parameter's group. */
  readonly learningRate: Value;
  /** Share of the parameter that the learning rate takes away; 0 where the group does not decay. */
  readonly weightDecay: number;
  /** Whether Muon makes its steps orthogonal. */
  readonly orthogonal: boolean;
}

export interface UpdatedParameter {
  readonly parameter: Value;
  readonly slots: Readonly<Record<string, Value>>;
}

export interface Optimizer {
  /** Names of the tensors kept for each parameter. */
  readonly slots: readonly string[];
  /** The scalars fed at each step, from the number of the step (the first is 1) and its learning rate. */
  scalars(step: number, learningRate: number): Readonly<Record<string, number>>;
  /** Adds one parameter's update to the graph. */
  update(graph: Graph, update: ParameterUpdate): UpdatedParameter;
}

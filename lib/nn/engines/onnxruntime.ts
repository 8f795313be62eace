/** The default engine: the whole training step as one ONNX graph, run by ONNX Runtime. */
import { env } from "onnxruntime-node";
import type { TrainingEngine } from "../engine.ts";
import { forwardFlops, parameterCount, planFromLayersModel, weightKey, writeWeights } from "../plan.ts";
import { buildTrainingProgram } from "../training-graph.ts";
import { createTrainingSession } from "../training-session.ts";

export const onnxruntimeEngine: TrainingEngine = {
  name: "onnxruntime",
  version: env.versions.node ?? "unknown",
  async createTrainer({ model, config, normalization, state }) {
    const plan = planFromLayersModel(model);
    const { batchSize, optimizer } = config;
    const program = buildTrainingProgram(plan, { batchSize, normalization, optimizer });
    const session = await createTrainingSession(program, {
      intraOpThreads: config.intraOpThreads,
      ...(state && { state }),
    });
    const keys = new Set(plan.nodes.flatMap((node) => node.weights.map((weight) => weightKey(node, weight))));
    const weights = () => new Map([...session.state()].filter(([name]) => keys.has(name)));
    return {
      masks: program.masks,
      parameterCount: parameterCount(plan),
      forwardFlopsPerImage: forwardFlops(plan),
      step: (batch, { step, learningRate }) => session.step(batch, program.optimizer.scalars(step + 1, learningRate)),
      state: () => session.state(),
      weights,
      setWeights: (values) => session.assign(values),
      writeWeights: (values = weights()) => writeWeights(model, plan, values),
      release: () => session.release(),
    };
  },
};

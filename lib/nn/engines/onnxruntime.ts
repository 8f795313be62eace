/** The default engine: the whole training step as one ONNX graph, run by ONNX Runtime. */
import { env } from "onnxruntime-node";
import type { TrainingEngine } from "../engine.ts";
import { createOptimizer } from "../optimizers.ts";
import { forwardFlops, parameterCount, planFromLayersModel, writeWeights } from "../plan.ts";
import { buildTrainingProgram } from "../training-graph.ts";
import { createTrainingSession } from "../training-session.ts";

export const onnxruntimeEngine: TrainingEngine = {
  name: "onnxruntime",
  version: env.versions.node ?? "unknown",
  async createTrainer({ model, config, normalization, state }) {
    const plan = planFromLayersModel(model);
    const optimizer = createOptimizer(config.optimizer);
    const program = buildTrainingProgram(plan, { batchSize: config.batchSize, normalization, optimizer });
    const session = await createTrainingSession(program, {
      intraOpThreads: config.intraOpThreads,
      ...(state && { state }),
    });
    return {
      masks: program.masks,
      parameterCount: parameterCount(plan),
      forwardFlopsPerImage: forwardFlops(plan),
      step: (batch, { step, learningRate }) => session.step(batch, optimizer.scalars(step + 1, learningRate)),
      state: () => session.state(),
      writeWeights: () => writeWeights(model, plan, session.state()),
      release: () => session.release(),
    };
  },
};

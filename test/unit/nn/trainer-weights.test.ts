/** Reading and setting the weights of a network in training, the same for every engine. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { resolveTrainingConfig } from "../../../lib/nn/configuration.ts";
import type { TrainingEngine } from "../../../lib/nn/engine.ts";
import { onnxruntimeEngine } from "../../../lib/nn/engines/onnxruntime.ts";
import { createTensorflowEngine } from "../../../lib/nn/engines/tensorflow.ts";
import { small } from "../../../lib/nn/networks/small.ts";
import { planFromLayersModel, weightKey } from "../../../lib/nn/plan.ts";
import { core } from "../../../lib/nn/tensorflow.ts";

const javascriptBackend = {
  version: core.version_core,
  check: () => undefined,
  load: async () => void (await core.setBackend("cpu")),
};
const engines: readonly TrainingEngine[] = [onnxruntimeEngine, createTensorflowEngine(javascriptBackend)];
const config = resolveTrainingConfig("small", { batchSize: 4, intraOpThreads: 1 });
const normalization = { mean: [0.5, 0.5, 0.5], standardDeviation: [0.2, 0.2, 0.2] };

function planOf(model: ReturnType<typeof small.build>): Map<string, Float32Array> {
  const { nodes } = planFromLayersModel(model);
  return new Map(nodes.flatMap((node) => node.weights.map((weight) => [weightKey(node, weight), weight.values])));
}

for (const engine of engines) {
  test(`the ${engine.name} engine gives the weights it trains, takes others, and writes any into the model`, async () => {
    const model = small.build({ height: 8, width: 8, channels: 3, classes: 4, seed: 1 });
    const initial = planOf(model);
    const trainer = await engine.createTrainer({ model, config, normalization });
    try {
      assert.deepEqual(new Map(trainer.weights()), initial);
      const halves = new Map(Array.from(initial, ([key, values]) => [key, values.map((value) => value / 2)]));
      trainer.setWeights(halves);
      assert.deepEqual(new Map(trainer.weights()), halves);
      assert.deepEqual(planOf(model), initial, "the model is left alone");
      trainer.writeWeights();
      assert.deepEqual(planOf(model), halves);
      trainer.writeWeights(initial);
      assert.deepEqual(planOf(model), initial);
    } finally {
      await trainer.release();
      model.dispose();
    }
  });
}

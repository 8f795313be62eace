import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../../lib/errors.ts";
import { parseTrainingConfig, resolveTrainingConfig } from "../../../lib/nn/configuration.ts";
import { engineVersion, findEngine } from "../../../lib/nn/engine.ts";
import { networks } from "../../../lib/nn/networks.ts";

for (const { name, defaults } of networks) {
  test(`the defaults of ${name} make a complete configuration`, () => {
    const config = resolveTrainingConfig(name);
    assert.deepEqual({ ...config, ...resolveTrainingConfig(name, defaults) }, config);
    assert.deepEqual(parseTrainingConfig(config), config);
  });
}

test("overrides reach into nested options and leave the rest", () => {
  const config = resolveTrainingConfig("small", {
    epochs: 3,
    optimizer: { learningRate: 0.5 },
    augmentation: { translation: 0 },
  });
  const defaults = resolveTrainingConfig("small");
  assert.deepEqual(config, {
    ...defaults,
    epochs: 3,
    optimizer: { ...defaults.optimizer, learningRate: 0.5 },
    augmentation: { ...defaults.augmentation, translation: 0 },
  });
});

test("an optimiser of another kind replaces the default and gets its own defaults", () => {
  const { optimizer } = resolveTrainingConfig("small", { optimizer: { kind: "adamw", learningRate: 0.02 } });
  const common = { learningRate: 0.02, biasLearningRateFactor: 1, gradientClipNorm: 0 };
  assert.deepEqual(optimizer, { ...common, kind: "adamw", beta1: 0.9, beta2: 0.999, epsilon: 1e-7, weightDecay: 0.01 });
});

test("the resolved configuration is frozen, also inside, lists included", () => {
  const config = resolveTrainingConfig("small", { classWeights: [1, 2] });
  assert.ok(Object.isFrozen(config.classWeights));
  assert.ok(Object.isFrozen(config) && Object.isFrozen(config.optimizer) && Object.isFrozen(config.augmentation));
});

const refused: Readonly<Record<string, { overrides: unknown; key: string; message: RegExp }>> = {
  "an unknown key": {
    overrides: { epoch: 3 },
    key: "epoch",
    message: /epoch is no option \(it takes epochs, batchSize/,
  },
  "an unknown key with a name that JavaScript gives a meaning": {
    overrides: JSON.parse('{"__proto__":{"foo":1}}'),
    key: "__proto__",
    message: /__proto__ is no option \(it takes epochs, batchSize/,
  },
  "an unknown key of the augmentation": {
    overrides: { augmentation: { flip: true } },
    key: "augmentation.flip",
    message: /takes horizontalFlip, translation/,
  },
  "an option of another optimiser": {
    overrides: { optimizer: { beta1: 0.5 } },
    key: "optimizer.beta1",
    message: /takes kind, learningRate, biasLearningRateFactor, gradientClipNorm, momentum, nesterov, weightDecay/,
  },
  "an unknown key of a schedule": {
    overrides: { schedule: { kind: "constant", warmUp: 0.1 } },
    key: "schedule.warmUp",
    message: /schedule takes kind/,
  },
  "an unknown optimiser": {
    overrides: { optimizer: { kind: "lion" } },
    key: "optimizer.kind",
    message: /optimizer.kind/,
  },
  "a learning rate of zero": {
    overrides: { optimizer: { learningRate: 0 } },
    key: "optimizer.learningRate",
    message: /learningRate is invalid/,
  },
  "a negative learning rate": {
    overrides: { optimizer: { learningRate: -1 } },
    key: "optimizer.learningRate",
    message: /learningRate is invalid/,
  },
  "no epochs": { overrides: { epochs: 0 }, key: "epochs", message: /epochs is invalid/ },
  "half a batch": { overrides: { batchSize: 0.5 }, key: "batchSize", message: /batchSize is invalid/ },
  "an option of another weight averaging": {
    overrides: { weightAveraging: { kind: "ema", every: 5 } },
    key: "weightAveraging.every",
    message: /takes kind, decay/,
  },
  "the best epoch without images to measure it on": {
    overrides: { keep: "best" },
    key: "keep",
    message: /needs a validationShare above 0/,
  },
  "patience without images to measure on": {
    overrides: { patience: 3 },
    key: "patience",
    message: /needs a validationShare above 0/,
  },
  "a class weighting that does not exist": {
    overrides: { classWeights: "balance" },
    key: "classWeights",
    message: /classWeights is invalid: expected "none", "balanced" or a list of positive numbers/,
  },
  "another optimiser without its learning rate": {
    overrides: { optimizer: { kind: "adam" } },
    key: "optimizer.learningRate",
    message: /optimizer.learningRate is missing; an optimizer of another kind than the network's default needs its own/,
  },
  "a number as a text": {
    overrides: { epochs: "3" },
    key: "epochs",
    message: /: epochs is invalid: expected number, received string$/,
  },
  "several mistakes at once": {
    overrides: { epoch: 3, batch: 8, epochs: 0, augmentation: { flip: true }, keep: "newest" },
    key: "epochs",
    message: /epochs is invalid.*; augmentation.flip is no option.*; keep is invalid.*; epoch, batch are no options/,
  },
  "more threads than any machine has": {
    overrides: { intraOpThreads: 257 },
    key: "intraOpThreads",
    message: /<=256/,
  },
  "checkpoints without a pause": {
    overrides: { checkpointMinutes: 1e-6 },
    key: "checkpointMinutes",
    message: /checkpointMinutes is invalid/,
  },
  "something else altogether": { overrides: [1], key: "", message: /the whole is invalid/ },
};

for (const [name, { overrides, key, message }] of Object.entries(refused)) {
  test(`${name} is refused by name`, () => {
    assert.throws(
      () => resolveTrainingConfig("small", overrides),
      (thrown) => {
        assert.ok(thrown instanceof AppError);
        assert.equal(thrown.code, "CONFIGURATION_INVALID");
        assert.equal(thrown.details.key, key);
        assert.match(thrown.message, message);
        return true;
      },
    );
  });
}

test("an engine that is not there is refused", () => {
  assert.match(engineVersion("onnxruntime"), /^onnxruntime \d+\.\d+/);
  assert.throws(() => findEngine("abacus"), { code: "ENGINE_UNAVAILABLE", message: /no engine abacus/ });
});

/** The gradients of the loss, against finite differences of the loss in float64: weighted and smoothed targets, L2 penalties. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { OptimizerConfig } from "../../../lib/nn/configuration.ts";
import { planFromLayersModel } from "../../../lib/nn/plan.ts";
import { writeSmoothLabel } from "../../../lib/nn/targets.ts";
import { layers as tf } from "../../../lib/nn/tensorflow.ts";
import { buildTrainingProgram } from "../../../lib/nn/training-graph.ts";
import { createTrainingSession } from "../../../lib/nn/training-session.ts";
import { assertAllClose } from "./layer-harness.ts";
import { byteArray, normalArray } from "./random-arrays.ts";

const seed = 17;
const [batchSize, features, classes] = [4, 6, 3];
/** Its step of rate 1 takes exactly the gradient away. */
const plainDescent: OptimizerConfig = {
  ...{ kind: "sgd", learningRate: 1, biasLearningRateFactor: 1, gradientClipNorm: 0 },
  ...{ momentum: 0, nesterov: false, weightDecay: 0 },
};
const normalization = { mean: [0.5], standardDeviation: [0.25] };
const pixels = byteArray(seed, batchSize * features);
const weights = [0.5, 1, 3];

for (const [name, { l2, smoothing }] of Object.entries({
  "of weighted images": { l2: 0, smoothing: 0 },
  "of weighted images with smoothed labels": { l2: 0, smoothing: 0.2 },
  "of weighted images with smoothed labels and an L2 penalty": { l2: 0.3, smoothing: 0.2 },
})) {
  test(`the gradient of the loss ${name} agrees with finite differences`, async () => {
    const targets = targetsOf(smoothing);
    const parameters = { kernel: normalArray(seed + 1, features * classes), bias: normalArray(seed + 2, classes) };
    const { loss, gradients } = await stepOf(parameters, { l2, targets });
    assertAllClose([loss], [lossOf(parameters, { l2, targets })], 1e-5, "loss");
    for (const key of ["kernel", "bias"] as const) {
      const expected = parameters[key].map((_, index) => {
        const at = (step: number): number => {
          const moved = Float64Array.from(parameters[key]);
          moved[index] = (moved[index] ?? 0) + step;
          return lossOf({ ...parameters, [key]: moved }, { l2, targets });
        };
        return (at(1e-5) - at(-1e-5)) / 2e-5;
      });
      assertAllClose(gradients[key], expected, 1e-5, `gradient of ${key}, seed ${seed}`);
    }
  });
}

interface Parameters<T> {
  /** [features, classes]. */
  readonly kernel: T;
  readonly bias: T;
}

interface LossOptions {
  readonly l2: number;
  readonly targets: Float32Array;
}

/** The loss and what a step of gradient descent takes from a softmax regression's weights. */
async function stepOf({ kernel, bias }: Parameters<Float32Array>, { l2, targets }: LossOptions) {
  const model = tf.sequential();
  model.add(tf.layers.flatten({ inputShape: [2, 3, 1] }));
  const kernelRegularizer = tf.regularizers.l2({ l2 });
  model.add(tf.layers.dense({ name: "head", units: classes, activation: "softmax", kernelRegularizer }));
  const program = buildTrainingProgram(planFromLayersModel(model), {
    batchSize,
    normalization,
    optimizer: plainDescent,
  });
  const before = new Map([
    ["head/kernel", kernel],
    ["head/bias", bias],
  ]);
  const session = await createTrainingSession(program, { intraOpThreads: 1, state: before });
  const { loss } = await session.step({ pixels, targets, masks: [] }, program.optimizer.scalars(1, 1));
  const after = session.state();
  const taken = (key: string) => before.get(key)?.map((value, index) => value - (after.get(key)?.[index] ?? 0));
  const gradients = { kernel: taken("head/kernel") ?? assert.fail(), bias: taken("head/bias") ?? assert.fail() };
  await session.release();
  return { loss, gradients };
}

/** The same loss in plain float64: the mean of -sum(target log softmax(logits)), and l2 sum(kernel^2). */
function lossOf({ kernel, bias }: Parameters<ArrayLike<number>>, { l2, targets }: LossOptions): number {
  let loss = Array.from(kernel).reduce((sum, value) => sum + l2 * value * value, 0);
  for (let image = 0; image < batchSize; image++) {
    const logits = Array.from(bias, (offset, label) => {
      let sum = offset;
      for (let feature = 0; feature < features; feature++) {
        const x = ((pixels[image * features + feature] ?? 0) / 255 - 0.5) / 0.25;
        sum += x * (kernel[feature * classes + label] ?? 0);
      }
      return sum;
    });
    const total = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
    for (const [label, logit] of logits.entries()) {
      loss -= ((targets[image * classes + label] ?? 0) * (logit - total)) / batchSize;
    }
  }
  return loss;
}

function targetsOf(smoothing: number): Float32Array {
  const targets = new Float32Array(batchSize * classes);
  for (let image = 0; image < batchSize; image++) {
    const label = image % classes;
    writeSmoothLabel(targets, { offset: image * classes, classes, label, smoothing, weight: weights[label] ?? 1 });
  }
  return targets;
}

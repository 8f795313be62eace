/** Trainings that cannot be: each is refused before its first step, most before any work, in words that say what to change. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { ErrorCode } from "../../../lib/errors.ts";
import { checkTraining, startTraining, type TrainingRequest } from "../../../lib/nn/training.ts";
import { assertRejects, isAppError } from "./app-errors.ts";
import { blotData, shortData as data, shortTraining } from "./training-data.ts";

const badRequests: Readonly<Record<string, { request: () => TrainingRequest; code: ErrorCode; message: RegExp }>> = {
  "a label out of range": {
    request: () => changed({ labels: sharedLabels([...data.labels.slice(0, -1), 4]) }),
    code: "DATASET_INVALID",
    message: /image 127 has label 4, there are 4 classes/,
  },
  "a class without images": {
    request: () => changed({ classes: [...data.classes, "middle"] }),
    code: "DATASET_INVALID",
    message: /class middle has no image/,
  },
  "a single class": { request: () => changed({ classes: ["all"] }), code: "DATASET_INVALID", message: /at least 2/ },
  "no images": {
    request: () => changed({ labels: sharedLabels([]), pixels: new Uint8Array(new SharedArrayBuffer(0)) }),
    code: "DATASET_INVALID",
    message: /no images/,
  },
  "pixels of another shape": { request: () => changed({ height: 9 }), code: "DATASET_INVALID", message: /3x9x8 need/ },
  "a deviation of zero": {
    request: () => changed({ standardDeviation: [0.2, 0, 0.2] }),
    code: "DATASET_INVALID",
    message: /must be positive/,
  },
  "a batch larger than the data": {
    request: () => shortTraining("small", { batchSize: 129 }),
    code: "CONFIGURATION_INVALID",
    message: /batchSize 129 is more than the 128 images/,
  },
  "a batch larger than what validation leaves": {
    request: () => shortTraining("small", { batchSize: 100, validationShare: 0.25 }),
    code: "CONFIGURATION_INVALID",
    message: /batchSize 100 is more than the 96 images/,
  },
  "a class too small for the validation": {
    request: () => shortTraining("small", { validationShare: 0.01 }),
    code: "CONFIGURATION_INVALID",
    message: /32 images of class upper left leaves none to validate on/,
  },
  "a learning rate of 0": {
    request: () => shortTraining("small", { optimizer: { learningRate: 0 } }),
    code: "CONFIGURATION_INVALID",
    message: /optimizer\.learningRate/,
  },
  "a negative learning rate": {
    request: () => shortTraining("paper", { optimizer: { learningRate: -0.1 } }),
    code: "CONFIGURATION_INVALID",
    message: /optimizer\.learningRate/,
  },
  "zero epochs": {
    request: () => shortTraining("small", { epochs: 0 }),
    code: "CONFIGURATION_INVALID",
    message: /epochs/,
  },
  "an unknown network": {
    request: () => ({ ...shortTraining("small"), network: "huge" }),
    code: "NETWORK_UNKNOWN",
    message: /these are: small, /,
  },
  "an engine that is not there": {
    request: () => ({ ...shortTraining("small"), engine: "abacus" }),
    code: "ENGINE_UNAVAILABLE",
    message: /set MILLRACE_ENGINE to onnxruntime or tensorflow/,
  },
};

for (const [name, { request, code, message }] of Object.entries(badRequests)) {
  test(`${name} is an error before any work`, () => {
    assert.throws(
      () => startTraining(request()),
      (thrown) => isAppError(thrown, code, message),
    );
  });
}

for (const [network, size, layer] of [
  ["small", 2, "pool2"],
  ["paper", 4, "pool3"],
] as const) {
  test(`images too small for ${network} are an error that names the layer`, async () => {
    const tiny = blotData({ images: 128, size });
    const request = { ...shortTraining(network, { augmentation: { translation: 0 } }), data: tiny };
    await assertRejects(startTraining(request).result, "DATASET_INVALID", new RegExp(layer));
    const { pixels: _, labels: __, ...outline } = tiny;
    assert.throws(
      () => checkTraining({ ...request, data: { ...outline, classCounts: [32, 32, 32, 32] } }),
      (thrown) => isAppError(thrown, "DATASET_INVALID", new RegExp(layer)),
      "without the images as well",
    );
  });
}

function changed(changes: Partial<TrainingRequest["data"]>): TrainingRequest {
  return { ...shortTraining("small"), data: { ...data, ...changes } };
}

function sharedLabels(labels: readonly number[]): Uint16Array {
  const shared = new Uint16Array(new SharedArrayBuffer(labels.length * 2));
  shared.set(labels);
  return shared;
}

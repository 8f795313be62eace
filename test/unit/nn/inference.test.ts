/** The inference worker. */
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { resolveTrainingConfig } from "../../../lib/nn/configuration.ts";
import { createInferenceWorker } from "../../../lib/nn/inference.ts";
import { describeModel } from "../../../lib/nn/model-description.ts";
import { startTraining } from "../../../lib/nn/training.ts";
import { blotData } from "./training-data.ts";

const data = blotData({ images: 64 });
const image = data.pixels.slice(0, 192);
let onnx = new Uint8Array();

before(async () => {
  const config = resolveTrainingConfig("small", { epochs: 1, batchSize: 32 });
  onnx = Uint8Array.from((await startTraining({ network: "small", config, data }).result).onnx);
});

test("a model describes itself", () => {
  const { network, classes, input, parameterCount } = describeModel(onnx);
  assert.equal(network, "small");
  assert.deepEqual(classes, data.classes);
  const { mean, standardDeviation } = data;
  assert.deepEqual(input, { channels: 3, height: 8, width: 8, mean, standardDeviation });
  assert.ok(parameterCount > 0);
});

test("bytes that are no model are refused", async () => {
  assert.throws(() => describeModel(Uint8Array.of(1, 2, 3)), { code: "ARTIFACT_CORRUPT" });
  await assert.rejects(createInferenceWorker({ onnx: new Uint8Array() }), { code: "ARTIFACT_CORRUPT" });
});

test("runs at the same time are each answered with their own probabilities", async () => {
  await using worker = await createInferenceWorker({ onnx, intraOpThreads: 1 });
  const alone = await Promise.all(
    [0, 1, 2, 3].map((index) => worker.run(data.pixels.slice(index * 192, (index + 1) * 192), 1)),
  );
  const together = await worker.run(data.pixels.slice(0, 4 * 192), 4);
  for (const [index, { probabilities, durationMs }] of alone.entries()) {
    const expected = together.probabilities.subarray(index * 4, (index + 1) * 4);
    assert.ok(probabilities.every((value, k) => Math.abs(value - (expected[k] ?? 0)) < 1e-5));
    assert.ok(durationMs > 0);
  }
});

test("pixels are copied by default and handed over on request", async () => {
  await using worker = await createInferenceWorker({ onnx, intraOpThreads: 1 });
  const pixels = Uint8Array.from(image);
  const first = await worker.run(pixels, 1);
  assert.equal(pixels.length, 192);
  const second = await worker.run(pixels, 1, { transfer: true });
  assert.equal(pixels.length, 0, "the buffer has gone to the thread");
  assert.deepEqual(first.probabilities, second.probabilities);
});

test("pixels of the wrong number are refused before they reach the model", async () => {
  await using worker = await createInferenceWorker({ onnx, intraOpThreads: 1 });
  await assert.rejects(worker.run(image, 2), { code: "INVALID_REQUEST", message: /2 images of 3x8x8 need 384 bytes/ });
  await assert.rejects(worker.run(new Uint8Array(), 0), { code: "INVALID_REQUEST" });
  assert.ok(worker.alive);
});

test("a model that is unloaded answers what it was asked for before, in order; every later run rejects", async () => {
  const worker = await createInferenceWorker({ onnx, intraOpThreads: 1 });
  const answered: number[] = [];
  const runs = [64, 1, 32].map(async (n) => {
    const { probabilities } = await worker.run(data.pixels.slice(0, n * image.length), n);
    assert.equal(probabilities.length, n * 4);
    answered.push(n);
  });
  await worker[Symbol.asyncDispose]();
  await Promise.all(runs);
  assert.deepEqual(answered, [64, 1, 32]);
  assert.equal(worker.alive, false);
  await assert.rejects(worker.run(image, 1), { code: "MODEL_NOT_READY", message: /was unloaded/ });
});

/** What a training begins with: the network for the data, with the weights that it takes from the data. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { allocateBatch, createBatchMaker } from "../../../lib/nn/batches.ts";
import { resolveTrainingConfig } from "../../../lib/nn/configuration.ts";
import { onnxruntimeEngine } from "../../../lib/nn/engines/onnxruntime.ts";
import { normalizedTensor } from "../../../lib/nn/image-tensor.ts";
import { buildInitialNetwork } from "../../../lib/nn/initial-network.ts";
import type { NetworkDefinition, NetworkInput } from "../../../lib/nn/networks/definition.ts";
import { small } from "../../../lib/nn/networks/small.ts";
import { speedrun } from "../../../lib/nn/networks/speedrun.ts";
import { networks } from "../../../lib/nn/networks.ts";
import { core, layers as tf } from "../../../lib/nn/tensorflow.ts";
import type { TrainingData } from "../../../lib/nn/training-data.ts";
import { assertAllClose } from "./layer-harness.ts";
import { blotData, greyBlotData } from "./training-data.ts";

const build = (definition: NetworkDefinition, data: TrainingData) =>
  buildInitialNetwork(definition, { data, images: Uint32Array.from(data.labels.keys()), seed: 1 });

for (const { name, size, description } of [
  { name: "many small images", size: 8, description: "2,000 of them" },
  { name: "large images", size: 512, description: "as many as have four million pixels" },
]) {
  test(`of ${name} a network looks at ${description}`, () => {
    // Shared, so that these images cost no memory: all are the first one.
    const data = { ...blotData({ images: 4, size }), labels: new Uint16Array(3000) };
    const seen: number[] = [];
    const initialize = (_: unknown, images: core.Tensor4D) => void seen.push(...images.shape);
    const definition = { ...small, build: () => small.build({ ...data, classes: 4, seed: 1 }), initialize };
    const images = new Uint32Array(3000);
    buildInitialNetwork(definition, { data, images, seed: 1 }).dispose();
    assert.deepEqual(seen, [size === 8 ? 2000 : 15, size, size, 3]);
  });
}

test("pixels become normalised floats with the channels last", () => {
  const pixels = Uint8Array.of(0, 51, 102, 153, 204, 255, 255, 0, 0, 51, 51, 102);
  const normalization = { mean: [0.2, 0], standardDeviation: [0.5, 2] };
  const tensor = normalizedTensor(pixels, { channels: 2, height: 1, width: 3 }, normalization);
  assert.deepEqual(tensor.shape, [2, 1, 3, 2]);
  const expected = [-0.4, 0.3, 0, 0.4, 0.4, 0.5, 1.6, 0.1, -0.4, 0.1, -0.4, 0.2];
  assertAllClose(tensor.dataSync(), expected, 1e-6, "normalised pixels");
});

for (const network of networks) {
  test(`images that are too small for ${network.name} are refused, with what to do`, () => {
    assert.throws(() => build(network, blotData({ images: 8, size: 7 })), {
      code: "DATASET_INVALID",
      retryable: false,
      message: new RegExp(`^images of 7x7 are too small for network ${network.name}: its layer \\S*pool\\S* `),
    });
  });
}

type Symbolic = ReturnType<typeof tf.input>;

const picturesOf = (channels: number, size: number) => {
  const model = tf.sequential({ name: "fixed" });
  model.add(tf.layers.flatten({ inputShape: [size, size, channels] }));
  model.add(tf.layers.dense({ units: 4, activation: "softmax" }));
  return model;
};

for (const [name, made, taken] of [
  ["another size", () => picturesOf(3, 9), "3x9x9 in 4"],
  ["another number of channels", () => picturesOf(1, 8), "1x8x8 in 4"],
  ["another number of classes", () => small.build({ ...blotData({ images: 4 }), classes: 3, seed: 1 }), "3x8x8 in 3"],
] as const) {
  test(`a network that is made for ${name} is refused, and leaves no tensor behind`, () => {
    const before = core.memory().numTensors;
    assert.throws(() => build({ ...small, build: made }, blotData({ images: 8 })), {
      code: "DATASET_INVALID",
      message: new RegExp(`is for images of ${taken} classes, the data set has images of 3x8x8 in 4 classes; prepare`),
    });
    assert.equal(core.memory().numTensors, before);
  });
}

/** What TensorFlow.js refuses while a network is built, and says of it. */
const unbuildable: Readonly<Record<string, { layers: (image: Symbolic) => unknown; reason: string }>> = {
  "a sum of shapes that do not broadcast": {
    layers: (image) => tf.layers.add().apply([image, tf.layers.maxPooling2d({ poolSize: 2 }).apply(image) as Symbolic]),
    reason: "Operands could not be broadcast .*",
  },
  "a regulariser of what a layer gives": {
    layers: (image) =>
      tf.layers.conv2d({ filters: 1, kernelSize: 1, activityRegularizer: tf.regularizers.l2() }).apply(image),
    reason: ".* activity regularizer\\(s\\) is not supported yet",
  },
};

for (const [name, { layers, reason }] of Object.entries(unbuildable)) {
  test(`${name} is an error that names the network, and is not tried again`, () => {
    const broken = ({ height, width, channels }: NetworkInput) => {
      layers(tf.input({ shape: [height, width, channels] }));
      return assert.fail("nothing was refused");
    };
    assert.throws(() => build({ ...small, name: "broken", build: broken }, blotData({ images: 8 })), {
      code: "LAYER_UNSUPPORTED",
      retryable: false,
      message: new RegExp(
        `^network broken cannot be built for images of 3x8x8 in 4 classes: ${reason}; mend its layers`,
      ),
    });
  });
}

test("images of a single pixel are refused like others, before anything looks for patches in them", () => {
  assert.throws(
    () => build(speedrun, blotData({ images: 8, size: 1 })),
    /images of 1x1 are too small .* layer pool1a /,
  );
});

test("a network's initial weights leave no tensor behind, nor does one whose images cannot be looked at", () => {
  const data = blotData({ images: 8 });
  const before = core.memory().numTensors;
  build(speedrun, data).dispose();
  assert.equal(core.memory().numTensors, before);
  const model = small.build({ ...data, classes: 4, seed: 1 });
  const built = core.memory().numTensors;
  const initialize = (): void => assert.fail("no patches");
  assert.throws(() => build({ ...small, build: () => model, initialize }, data), /no patches/);
  assert.equal(core.memory().numTensors, built);
  model.dispose();
});

test("grey images are whitened like colours, and the speedrun trains on them", async () => {
  const data = greyBlotData({ images: 40, size: 9 });
  const model = build(speedrun, data);
  const [kernel] = model.getLayer("whiten").getWeights();
  assert.deepEqual(kernel?.shape, [2, 2, 1, 8]);
  const config = resolveTrainingConfig("speedrun", { batchSize: 20, intraOpThreads: 1 });
  const trainer = await onnxruntimeEngine.createTrainer({ model, config, normalization: data });
  const images = Uint32Array.from(data.labels.keys());
  const batch = allocateBatch({ data, config, masks: trainer.masks });
  createBatchMaker({ data, config, masks: trainer.masks, images }).fill(0, batch);
  const { loss } = await trainer.step(batch, { step: 0, learningRate: 0.01 });
  assert.ok(loss > 0.5 && loss < 5, `loss ${loss}`);
  await trainer.release();
});

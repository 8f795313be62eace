/** A small network around the layers under test. */
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { layers as tf } from "../../../lib/nn/tensorflow.ts";

/** Each part in turn, after a 16x8 input and before a dense softmax. */
export function sequential(...parts: LayersModel["layers"]): LayersModel {
  const model = tf.sequential();
  model.add(tf.layers.inputLayer({ inputShape: [16, 8, 3] }));
  for (const part of parts) model.add(part);
  model.add(tf.layers.dense({ units: 3, activation: "softmax" }));
  return model;
}

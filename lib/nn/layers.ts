/** Every layer the compiler knows, by its class name in the Layers API. */
import { AppError } from "../errors.ts";
import { activationLayer, reluLayer } from "./layers/activation.ts";
import { averagePoolingLayer, globalAveragePoolingLayer } from "./layers/average-pooling.ts";
import { batchNormalizationLayer } from "./layers/batch-normalization.ts";
import { convolutionLayer } from "./layers/convolution.ts";
import type { LayerDefinition } from "./layers/definition.ts";
import { denseLayer } from "./layers/dense.ts";
import { dropoutLayer } from "./layers/dropout.ts";
import { flattenLayer } from "./layers/flatten.ts";
import { globalMaxPoolingLayer, maxPoolingLayer } from "./layers/max-pooling.ts";
import { addLayer } from "./layers/merge.ts";

const layerTable: Readonly<Record<string, LayerDefinition>> = {
  Activation: activationLayer,
  Add: addLayer,
  AveragePooling2D: averagePoolingLayer,
  BatchNormalization: batchNormalizationLayer,
  Conv2D: convolutionLayer,
  Dense: denseLayer,
  Dropout: dropoutLayer,
  Flatten: flattenLayer,
  GlobalAveragePooling2D: globalAveragePoolingLayer,
  GlobalMaxPooling2D: globalMaxPoolingLayer,
  MaxPooling2D: maxPoolingLayer,
  ReLU: reluLayer,
};

/** Names of the layers that work. Softmax is among them in so far as it may end a network. */
export const supportedLayers: readonly string[] = [...Object.keys(layerTable), "Softmax (last layer)"].sort();

/** The definition of a layer, or LAYER_UNSUPPORTED naming the layer and those that work. */
export function findLayer(layer: { readonly className: string; readonly name: string }): LayerDefinition {
  const definition = Object.hasOwn(layerTable, layer.className) ? layerTable[layer.className] : undefined;
  if (definition !== undefined) return definition;
  throw new AppError(
    "LAYER_UNSUPPORTED",
    `layer ${layer.name}: ${layer.className} is not supported; these are: ${supportedLayers.join(", ")}`,
    { details: { layer: layer.name, className: layer.className } },
  );
}

/** Every layer the compiler knows, by its class name in the Layers API. */
import { AppError } from "../errors.ts";
import { activationLayer, eluLayer, leakyReluLayer, reluLayer, softmaxLayer } from "./layers/activation.ts";
import { averagePoolingLayer, globalAveragePoolingLayer } from "./layers/average-pooling.ts";
import { batchNormalizationLayer } from "./layers/batch-normalization.ts";
import { convolutionLayer } from "./layers/convolution.ts";
import type { LayerDefinition } from "./layers/definition.ts";
import { denseLayer } from "./layers/dense.ts";
import { depthwiseConvolutionLayer } from "./layers/depthwise-convolution.ts";
import { dropoutLayer } from "./layers/dropout.ts";
import { globalMaxPoolingLayer, maxPoolingLayer } from "./layers/max-pooling.ts";
import { addLayer, concatenateLayer } from "./layers/merge.ts";
import { rescalingLayer } from "./layers/rescaling.ts";
import { flattenLayer, reshapeLayer } from "./layers/reshape.ts";
import { separableConvolutionLayer } from "./layers/separable-convolution.ts";
import { zeroPaddingLayer } from "./layers/zero-padding.ts";

const layerTable: Readonly<Record<string, LayerDefinition>> = {
  Activation: activationLayer,
  Add: addLayer,
  AveragePooling2D: averagePoolingLayer,
  BatchNormalization: batchNormalizationLayer,
  Concatenate: concatenateLayer,
  Conv2D: convolutionLayer,
  Dense: denseLayer,
  DepthwiseConv2D: depthwiseConvolutionLayer,
  Dropout: dropoutLayer,
  ELU: eluLayer,
  Flatten: flattenLayer,
  GlobalAveragePooling2D: globalAveragePoolingLayer,
  GlobalMaxPooling2D: globalMaxPoolingLayer,
  LeakyReLU: leakyReluLayer,
  MaxPooling2D: maxPoolingLayer,
  ReLU: reluLayer,
  Rescaling: rescalingLayer,
  Reshape: reshapeLayer,
  SeparableConv2D: separableConvolutionLayer,
  Softmax: softmaxLayer,
  ZeroPadding2D: zeroPaddingLayer,
};

/** Names of the layers that work. */
export const supportedLayers: readonly string[] = Object.keys(layerTable).sort();

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

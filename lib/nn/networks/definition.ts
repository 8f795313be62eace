/** What a network has to say of itself. One file in this folder describes one network. */
import type { LayersModel } from "@tensorflow/tfjs-layers";
import type { TrainingDefaults } from "../configuration.ts";
import type { core } from "../tensorflow.ts";

/** What a network is built for. */
export interface NetworkInput {
  /** Pixels. */
  readonly height: number;
  /** Pixels. */
  readonly width: number;
  /** 1 for grey, 3 for colour. */
  readonly channels: number;
  /** Number of classes. */
  readonly classes: number;
  /** Of the initial weights: the same seed gives the same weights. */
  readonly seed: number;
}

export interface NetworkDefinition {
  /** The name it is asked for by. */
  readonly name: string;
  /** One sentence for people who choose. */
  readonly description: string;
  /** The network with its initial weights. It ends in a softmax over the classes. */
  build(input: NetworkInput): LayersModel;
  /**
   * Sets initial weights that depend on the data, on a model that `build` has made. `images` are some of the training set, normalised, [N, H, W, C].
   * Default: nothing. The tensors that it makes are disposed of after it.
   */
  initialize?(model: LayersModel, images: core.Tensor4D): void;
  /** How it is trained where nothing else is said. */
  readonly defaults: TrainingDefaults;
}

/** What a network has to say of itself. One file in this folder describes one network. */
import type { LayersModel } from "@tensorflow/tfjs-layers";
import type { TrainingConfig } from "../configuration.ts";

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
  /** How it is trained where nothing else is said. */
  readonly defaults: TrainingConfig;
}

/**
 * A training in a process of its own that stores a checkpoint after each step, until it is killed by SIGKILL right after one. Arguments: the
 * network, its hyper-parameters as JSON, the images' height, the file for the checkpoint, and the epochs and steps after which to die.
 */
import { renameSync, writeFileSync } from "node:fs";
import { resolveTrainingConfig } from "../../../lib/nn/configuration.ts";
import { train } from "../../../lib/nn/trainer.ts";
import { blotData } from "./training-data.ts";

const [network = "", overrides = "{}", size = "0", file = "", epochs = "0", steps = "0"] = process.argv.slice(2);

const config = resolveTrainingConfig(network, JSON.parse(overrides));
const onCheckpoint = (checkpoint: Uint8Array, position: { epochs: number; steps: number }): void => {
  writeFileSync(`${file}.new`, checkpoint);
  renameSync(`${file}.new`, file);
  if (position.epochs === Number(epochs) && position.steps === Number(steps)) process.kill(process.pid, "SIGKILL");
};
const request = { network, config, data: blotData({ images: 128, size: Number(size) }), pace: { checkpointMs: 0 } };
await train(request, { onCheckpoint }, () => false);

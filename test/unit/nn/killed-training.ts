/**
 * A training in a process of its own that is killed by SIGKILL right after a checkpoint within an epoch is on the disk. Arguments: the
 * network, its hyper-parameters as JSON, the file for the checkpoint, and the epochs and steps after which to die.
 */
import { renameSync, writeFileSync } from "node:fs";
import { resolveTrainingConfig } from "../../../lib/nn/configuration.ts";
import { train } from "../../../lib/nn/trainer.ts";
import { blotData } from "./training-data.ts";

const [network = "", overrides = "{}", file = "", epochs = "0", steps = "0"] = process.argv.slice(2);

const config = resolveTrainingConfig(network, JSON.parse(overrides));
const onCheckpoint = (checkpoint: Uint8Array, position: { epochs: number; steps: number }): void => {
  writeFileSync(`${file}.new`, checkpoint);
  renameSync(`${file}.new`, file);
  if (position.epochs === Number(epochs) && position.steps === Number(steps)) process.kill(process.pid, "SIGKILL");
};
await train({ network, config, data: blotData({ images: 128 }) }, { onCheckpoint }, () => false);

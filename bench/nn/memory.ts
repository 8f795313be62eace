/**
 * How much memory a training takes at most: dozens of steps at batch 512 on as many images as CIFAR-10 has, each network in a process
 * of its own. The images are noise, which takes as much memory as others; checkpoints are made on the way, as in a run.
 *
 *     node --import tsx bench/nn/memory.ts [--networks paper,small] [--steps 24]
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { AppError } from "../../lib/errors.ts";
import { resolveTrainingConfig } from "../../lib/nn/configuration.ts";
import { engineVersion } from "../../lib/nn/engine.ts";
import { networks } from "../../lib/nn/networks.ts";
import { createRandom } from "../../lib/nn/random.ts";
import { startTraining } from "../../lib/nn/training.ts";
import type { TrainingData } from "../../lib/nn/training-data.ts";
import { machine } from "../report.ts";

const limitMB = 3000;
const imageCount = 50_000;
const batchSize = 512;
/** Often enough for several within the measurement. */
const checkpointMinutes = 0.1;
const measuredByDefault = ["paper", "speedrun"].filter((name) => networks.some((network) => network.name === name));

const { values } = parseArgs({
  options: {
    networks: { type: "string", default: measuredByDefault.join(",") },
    steps: { type: "string", default: "24" },
    /** One network, in this process. */
    alone: { type: "string" },
  },
});
const steps = Number(values.steps);

function noise(): TrainingData {
  const [height, width, channels, classCount] = [32, 32, 3, 10];
  const pixels = new Uint8Array(new SharedArrayBuffer(imageCount * height * width * channels));
  const random = createRandom(1);
  for (let index = 0; index < pixels.length; index++) pixels[index] = random.integer(256);
  const labels = new Uint16Array(new SharedArrayBuffer(imageCount * 2));
  for (let image = 0; image < imageCount; image++) labels[image] = image % classCount;
  const classes = Array.from({ length: classCount }, (_, label) => `class ${label}`);
  return {
    ...{ height, width, channels, classes, pixels, labels },
    mean: [0.5, 0.5, 0.5],
    standardDeviation: [0.29, 0.29, 0.29],
  };
}

/** Megabytes that this process, its threads included, has had in memory at most. */
const peakMB = (): number => process.resourceUsage().maxRSS / 1024;

interface Measured {
  readonly beforeMB: number;
  readonly peakMB: number;
  readonly steps: number;
  readonly checkpoints: number;
}

/** Trains until the steps are done, then stops: what a whole epoch would add is only time. */
async function trainAlone(network: string): Promise<Measured> {
  const data = noise();
  const beforeMB = peakMB();
  const config = resolveTrainingConfig(network, { batchSize, checkpointMinutes });
  const done = { steps: 0, checkpoints: 0 };
  const job = startTraining(
    { network, config, data },
    {
      onProgress({ epoch, step, steps: perEpoch }) {
        done.steps = (epoch - 1) * perEpoch + step;
        if (done.steps >= steps) void job.cancel();
      },
      onCheckpoint() {
        done.checkpoints++;
      },
    },
  );
  await job.result.catch((thrown: unknown) => {
    if (AppError.from(thrown).code !== "CANCELLED") throw thrown;
  });
  return { beforeMB, peakMB: peakMB(), ...done };
}

function measureInProcess(network: string): Measured {
  const script = ["--import", "tsx", fileURLToPath(import.meta.url), "--alone", network, "--steps", values.steps];
  const { stdout, status } = spawnSync(process.execPath, script, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  if (status !== 0) throw new Error(`the training of ${network} failed`);
  return JSON.parse(stdout) as Measured;
}

function report(network: string): void {
  const measured = measureInProcess(network);
  const figures = [
    `${measured.peakMB.toFixed(0).padStart(6)} MB at most`,
    `${measured.beforeMB.toFixed(0)} MB before the training`,
    `${measured.steps} steps, ${measured.checkpoints} checkpoints`,
    measured.peakMB < limitMB ? `within ${limitMB} MB` : `MORE THAN ${limitMB} MB`,
  ];
  console.log(`${network.padEnd(12)}${figures.join("; ")}`);
  if (measured.peakMB >= limitMB) process.exitCode = 1;
}

if (values.alone === undefined) {
  console.log(`training on ${imageCount} images of 32x32x3, batch ${batchSize}, ${engineVersion()}\n${machine()}\n`);
  for (const network of values.networks.split(",")) report(network);
} else {
  console.log(JSON.stringify(await trainAlone(values.alone)));
}

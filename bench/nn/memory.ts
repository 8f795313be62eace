/**
 * How much memory a training takes at most: one with as many images as CIFAR-10 has in memory, at batch 512, each network in a process of its
 * own. The images are noise, which takes as much memory as others. What a run does is done: checkpoints on the way, and at the end of the
 * epoch validation and the model that is served. Only the epoch is short, of dozens of steps: more of them would only take longer.
 *
 *     node --import tsx bench/nn/memory.ts [--networks paper,small] [--steps 24]
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
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
const validationShare = 0.1;

const { values } = parseArgs({
  options: {
    networks: { type: "string", default: networks.map(({ name }) => name).join(",") },
    steps: { type: "string", default: "24" },
    /** One network, in this process. */
    alone: { type: "string" },
  },
});
const steps = Number(values.steps);

/** As many images as the steps take. The others are in memory all the same, as part of the same buffer. */
function noise(): TrainingData {
  const [height, width, channels, classCount] = [32, 32, 3, 10];
  const pixels = new Uint8Array(new SharedArrayBuffer(imageCount * height * width * channels));
  const random = createRandom(1);
  for (let index = 0; index < pixels.length; index++) pixels[index] = random.integer(256);
  const used = Math.min(imageCount, Math.ceil((steps * batchSize) / (1 - validationShare)));
  const labels = new Uint16Array(new SharedArrayBuffer(used * 2));
  for (let image = 0; image < used; image++) labels[image] = image % classCount;
  const classes = Array.from({ length: classCount }, (_, label) => `class ${label}`);
  return {
    ...{ height, width, channels, classes, labels },
    pixels: pixels.subarray(0, used * height * width * channels),
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

async function trainAlone(network: string): Promise<Measured> {
  const data = noise();
  const beforeMB = peakMB();
  const config = resolveTrainingConfig(network, { batchSize, checkpointMinutes, validationShare, epochs: 1 });
  const done = { steps: 0, checkpoints: 0 };
  const job = startTraining(
    { network, config, data },
    {
      onProgress({ step }) {
        done.steps = step;
      },
      onCheckpoint() {
        done.checkpoints++;
      },
    },
  );
  await job.result;
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

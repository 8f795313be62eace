/** Something that does training steps, to be measured in turns with others. */
import { spawn } from "node:child_process";
import path from "node:path";
import { createInterface } from "node:readline";
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { fillMask } from "../../lib/nn/batches.ts";
import { resolveTrainingConfig } from "../../lib/nn/configuration.ts";
import type { TrainingEngine } from "../../lib/nn/engine.ts";
import { createRandom } from "../../lib/nn/random.ts";

/** The same in peer.py. */
export const threads = 2;
/** The same in peer.py. */
export const batchSize = 64;
/** The same in peer.py. */
export const image = { height: 32, width: 32, channels: 3, classes: 10, seed: 1 };

const warmUpSteps = 3;

export interface Peer {
  /** The library with its version. */
  readonly version: string;
  /** Does so many steps and gives the seconds they took. */
  run(steps: number): Promise<number>;
  end(): Promise<void>;
}

/** Starts one of the Python files beside this one. Rejects with the last thing that it said when it cannot run. */
export async function startPythonPeer(script: string, args: readonly string[]): Promise<Peer> {
  const python = process.env.MILLRACE_BENCH_PYTHON ?? "python3";
  // Full float32, as ONNX Runtime calculates: no bfloat16 behind the scenes.
  const env = { ...process.env, OMP_NUM_THREADS: `${threads}`, ONEDNN_DEFAULT_FPMATH_MODE: "STRICT" };
  const child = spawn(python, [path.join(import.meta.dirname, script), ...args], { env });
  let complaint = "it ended without a word";
  child.stderr.on("data", (data: Buffer) => {
    complaint = data.toString().trim().split("\n").at(-1) || complaint;
  });
  child.on("error", (error) => {
    complaint = error.message;
  });
  // A peer that has ended is noticed when its answer fails to come.
  child.stdin.on("error", () => undefined);
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const answer = async (): Promise<Record<string, unknown>> => {
    const line = await lines.next();
    if (!line.done) return JSON.parse(line.value) as Record<string, unknown>;
    await ended;
    throw new Error(complaint);
  };
  const { version } = await answer();
  return {
    version: String(version),
    async run(steps) {
      child.stdin.write(`${steps}\n`);
      return Number((await answer()).seconds);
    },
    async end() {
      child.stdin.end();
      await ended;
    },
  };
}

/** Steps of one of our engines, with what else they cost: the dropout masks that the loop draws. */
export async function startOwnPeer(engine: TrainingEngine, model: LayersModel): Promise<Peer> {
  engine.check?.();
  const optimizer = { kind: "adam", learningRate: 1e-3 };
  const config = resolveTrainingConfig("paper", { batchSize, optimizer, intraOpThreads: threads });
  const normalization = { mean: [0.5, 0.5, 0.5], standardDeviation: [0.25, 0.25, 0.25] };
  const trainer = await engine.createTrainer({ model, config, normalization });
  const batch = randomBatch();
  const random = createRandom(1);
  const masks = trainer.masks.map(({ shape }) => new Float32Array(shape.reduce((count, length) => count * length, 1)));
  let step = 0;
  const run = async (steps: number): Promise<number> => {
    const started = performance.now();
    for (const end = step + steps; step < end; step++) {
      for (const [index, mask] of trainer.masks.entries()) fillMask(random, mask, masks[index]);
      await trainer.step({ ...batch, masks }, { step, learningRate: 1e-3 });
    }
    return (performance.now() - started) / 1000;
  };
  await run(warmUpSteps);
  return { version: `${engine.name} ${engine.version}`, run, end: () => trainer.release() };
}

function randomBatch(): { pixels: Uint8Array; targets: Float32Array } {
  const { height, width, channels, classes } = image;
  const random = createRandom(1);
  const targets = new Float32Array(batchSize * classes);
  for (let row = 0; row < batchSize; row++) targets[row * classes + random.integer(classes)] = 1;
  const pixels = Uint8Array.from({ length: batchSize * channels * height * width }, () => random.integer(256));
  return { pixels, targets };
}

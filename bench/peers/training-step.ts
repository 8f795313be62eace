/**
 * How fast we train beside PyTorch and Keras on the same machine: images a second of whole training steps (forward pass, backward
 * pass, Adam) in float32 on 2 threads, batch 64, of the network `paper` and of a stack of six 3x3 convolutions with 64 channels.
 * All are started first and then take turns, so that a slow moment of the machine meets all of them.
 *
 * Run: node --import tsx bench/peers/training-step.ts [--network paper] [--rounds 5] [--steps 5]
 * MILLRACE_BENCH_PYTHON is a Python that has what requirements.txt lists, MILLRACE_BENCH_TFJS_NODE a folder that
 * build-tfjs-node.sh made. What is not there is left out, with the reason.
 */
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { AppError } from "../../lib/errors.ts";
import { onnxruntimeEngine } from "../../lib/nn/engines/onnxruntime.ts";
import { createTensorflowEngine } from "../../lib/nn/engines/tensorflow.ts";
import { nativeBackend } from "../../lib/nn/engines/tensorflow-backend.ts";
import { paper } from "../../lib/nn/networks/paper.ts";
import { buildConvolutionStack } from "../nn/networks.ts";
import { machine, quantile, reportHeader, reportLine } from "../report.ts";
import { batchSize, image, type Peer, startOwnPeer, startPythonPeer, threads } from "./peer.ts";

/** Thread pools go on spinning for a moment after their work. */
const pauseMs = 300;

const { values: options } = parseArgs({
  options: {
    network: { type: "string", multiple: true, default: ["paper", "stack"] },
    rounds: { type: "string", default: "5" },
    steps: { type: "string", default: "5" },
  },
});
const [rounds, steps] = [Number(options.rounds), Number(options.steps)];

/** How to build each network here. The Python files build the same. */
const networks: Readonly<Record<string, () => LayersModel>> = {
  paper: () => paper.build(image),
  stack: () => buildConvolutionStack(image),
};

interface Subject {
  /** Who is compared: the fastest form of each library counts. */
  readonly library: string;
  readonly form: string;
  start(network: string, build: () => LayersModel): Promise<Peer>;
}

// Read when libtensorflow is loaded; the engine has no other way to say so.
process.env.TF_NUM_INTRAOP_THREADS = `${threads}`;
const tfjsNode = process.env.MILLRACE_BENCH_TFJS_NODE;
const tensorflow = createTensorflowEngine(
  tfjsNode === undefined ? nativeBackend() : nativeBackend(path.resolve(tfjsNode, "package.json")),
);
const subjects: readonly Subject[] = [
  { library: "Millrace", form: "onnxruntime", start: (_, build) => startOwnPeer(onnxruntimeEngine, build()) },
  { library: "TensorFlow.js", form: "engine tensorflow", start: (_, build) => startOwnPeer(tensorflow, build()) },
  ...["channels_first", "channels_last", "compiled"].map((form) => pythonSubject("PyTorch", "pytorch.py", form)),
  ...["graph", "jitted"].map((form) => pythonSubject("Keras", "tensorflow_keras.py", form)),
];

console.log(machine());
console.log(
  `Images a second, batch ${batchSize}, float32, ${threads} threads; ${rounds} rounds of ${steps} steps in turns.`,
);
for (const network of options.network) {
  const build = networks[network];
  if (build === undefined)
    throw new Error(`there is no network ${network}; these are: ${Object.keys(networks).join(", ")}`);
  console.log(`\n${network.padEnd(34)}${reportHeader.slice(34)}`);
  const rates = await measure(network, build);
  for (const line of verdict(rates)) console.log(line);
}

function pythonSubject(library: string, script: string, form: string): Subject {
  return { library, form, start: (network) => startPythonPeer(script, [network, form]) };
}

/** Starts what can be started, lets them take turns, prints a line of each, and gives its images a second. */
async function measure(network: string, build: () => LayersModel): Promise<Map<Subject, number[]>> {
  const peers = new Map<Subject, Peer>();
  const absent: string[] = [];
  for (const subject of subjects) {
    try {
      peers.set(subject, await subject.start(network, build));
    } catch (thrown) {
      absent.push(`${subject.library}, ${subject.form}: not measured: ${AppError.from(thrown).message}`);
    }
  }
  const rates = new Map(Array.from(peers.keys(), (subject) => [subject, [] as number[]]));
  for (let round = 0; round < rounds; round++) {
    for (const [subject, peer] of peers) {
      await sleep(pauseMs);
      rates.get(subject)?.push((steps * batchSize) / (await peer.run(steps)));
    }
  }
  for (const [subject, peer] of peers) {
    await peer.end();
    const name = `${subject.library}, ${subject.form}`;
    console.log(reportLine(name, `images/s  ${peer.version}`, rates.get(subject) ?? [], 0));
  }
  for (const line of absent) console.log(line);
  return rates;
}

/** Who is ahead, each library in its fastest form. */
function verdict(rates: ReadonlyMap<Subject, readonly number[]>): string[] {
  const best = new Map<string, number>();
  for (const [{ library }, values] of rates) {
    const median = quantile(
      values.toSorted((a, b) => a - b),
      0.5,
    );
    best.set(library, Math.max(median, best.get(library) ?? 0));
  }
  const ours = best.get("Millrace") ?? Number.NaN;
  best.delete("Millrace");
  return Array.from(best, ([library, theirs]) =>
    theirs > ours
      ? `${library} is ahead of Millrace: ${(theirs / ours).toFixed(2)} times as fast.`
      : `Millrace is ahead of ${library}: ${(ours / theirs).toFixed(2)} times as fast.`,
  );
}

/**
 * How fast a training step runs at batch 64: images and floating-point operations a second of our compiled step, beside what
 * ONNX Runtime's bare forward convolution reaches in the same run, and beside TensorFlow.js on WebAssembly. A step counts as
 * three forward passes, convolutions and matrix products only, so that everything else it does shows as a loss. Convolutions count as
 * direct ones do, whichever way they are calculated: Winograd's algorithm multiplies less, and shows as a higher rate.
 *
 * TensorFlow.js is measured twice: with its own kernels, of which one that it lacks is supplied, and with the fastest that
 * can be put together from its others (wasm-kernels.ts). Their gradients are compared with its CPU backend's first.
 *
 *     node --import tsx bench/nn/training-step.ts [--rounds 5] [--without-wasm]
 */
import { parseArgs } from "node:util";
import { engineVersion } from "../../lib/nn/engine.ts";
import { core } from "../../lib/nn/tensorflow.ts";
import { machine, reportHeader, reportLine } from "../report.ts";
import {
  batchSize,
  compiledSubject,
  convolutionSubject,
  measuredNetwork,
  type Subject,
  wasmSubject,
} from "./training-subjects.ts";
import { checkWasmKernels } from "./wasm-check.ts";
import { startWasmBackend } from "./wasm-kernels.ts";

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "5" }, "without-wasm": { type: "boolean", default: false } },
});
const rounds = Number(values.rounds);

/** A network with the subjects that train it. */
interface Comparison {
  readonly name: string;
  readonly compiled: Subject;
  readonly others: readonly Subject[];
}

async function compare(name: string, withWasm: boolean): Promise<Comparison> {
  const network = measuredNetwork(name);
  const others = withWasm ? [wasmSubject(network, "own"), wasmSubject(network, "fastest")] : [];
  return { name, compiled: await compiledSubject(network), others };
}

/** Seconds a run, by subject and round. The subjects take turns, so that a slow moment of the machine meets all of them. */
async function measure(subjects: readonly Subject[]): Promise<Map<Subject, number[]>> {
  const seconds = new Map<Subject, number[]>(subjects.map((subject) => [subject, []]));
  for (const subject of subjects) await subject.run();
  for (let round = 0; round < rounds; round++) {
    for (const [subject, measured] of seconds) {
      const startedMs = performance.now();
      for (let run = 0; run < subject.runs; run++) await subject.run();
      measured.push((performance.now() - startedMs) / 1000 / subject.runs);
    }
  }
  return seconds;
}

const { "without-wasm": withoutWasm } = values;
// Networks are built before WebAssembly is ready to hold their weights.
await core.setBackend("cpu");
const bare = await convolutionSubject();
const comparisons = [
  await compare("paper", !withoutWasm),
  await compare("stack", !withoutWasm),
  await compare("small", !withoutWasm),
];
if (!withoutWasm) {
  await startWasmBackend();
  await checkWasmKernels();
}
const subjects = [bare, ...comparisons.flatMap(({ compiled, others }) => [compiled, ...others])];
const seconds = await measure(subjects);

const report = (name: string, unit: string, figures: readonly number[], digits: number): void =>
  console.log(reportLine(name, unit, figures, digits));
/** How many times as long one takes as the other, round by round. */
const ratios = (slow: Subject, fast: Subject, factor = 1): number[] =>
  (seconds.get(slow) ?? []).map((time, round) => (factor * time) / (seconds.get(fast)?.[round] ?? Number.NaN));

console.log(`training steps, batch ${batchSize}, ${engineVersion()}, ${rounds} rounds`);
if (!withoutWasm) {
  console.log(
    `WASM is TensorFlow.js ${core.version_core} on WebAssembly with SIMD and one thread: in Node it has no other mode`,
  );
}
console.log(`${machine()}\n\n${reportHeader}`);
for (const subject of subjects) {
  const times = seconds.get(subject) ?? [];
  report(
    subject.name,
    "GFLOP/s",
    times.map((time) => subject.flops / time / 1e9),
    1,
  );
  report(
    "",
    "images/s",
    times.map((time) => batchSize / time),
    0,
  );
}
console.log("\nthe compiled step");
for (const { name, compiled, others } of comparisons) {
  report(
    `${name} of bare convolution`,
    "% of its rate",
    ratios(bare, compiled, (100 * compiled.flops) / bare.flops),
    0,
  );
  for (const other of others) report(`than ${other.name}`, "times as fast", ratios(other, compiled), 1);
}

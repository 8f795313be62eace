/**
 * How the prediction service serves: its highest rate against ONNX Runtime alone, what it does at half of that and at twice, when
 * models are exchanged under load, what telemetry costs, how Node is started, and Python servers with the same model. Server, load generator and broker
 * are processes of their own and share the machine; nothing is pinned. Each scenario measures in rounds, by turns.
 *
 *     node --import tsx bench/serving/serving.ts [capacity] [overload] [swaps] [telemetry] [runtime] [peers]
 *         [--network small] [--rounds 5] [--seconds 5] [--warm-up 5] [--in-flight 1,8,64,256] [--swaps 50] [--json FILE]
 *
 * For the Python servers see bench/peers/README.md. The service has its defaults: metrics, no traces, and its answers as events; only that
 * a closed load is never refused for its expected wait. Variables of its own (MILLRACE_PREDICTION_...) are passed on to it. Processor time
 * and memory are read from Linux's /proc.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { AppError } from "../../lib/errors.ts";
import { machine } from "../report.ts";
import { measureCapacity } from "./capacity.ts";
import { comparePeers } from "./comparison.ts";
import { type SampleImage, sampleImages } from "./images.ts";
import { startGenerator } from "./load.ts";
import type { Bench, BenchOptions } from "./measuring.ts";
import { openHub } from "./millrace.ts";
import { buildModel, shape } from "./model.ts";
import { measureOverload } from "./overload.ts";
import { measureRuntime } from "./runtime.ts";
import { measureSwaps } from "./swaps.ts";
import { type Table, tableLines } from "./table.ts";
import { measureTelemetry } from "./telemetry.ts";

const scenarios: Readonly<Record<string, (bench: Bench) => Promise<Table>>> = {
  capacity: measureCapacity,
  overload: measureOverload,
  swaps: measureSwaps,
  telemetry: measureTelemetry,
  runtime: measureRuntime,
  peers: comparePeers,
};

const imageCount = 64;
/** Images whose answers are checked before a server is measured. */
const checkedImages = 4;

function readArguments() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      network: { type: "string", default: "small" },
      rounds: { type: "string", default: "5" },
      seconds: { type: "string", default: "5" },
      "warm-up": { type: "string", default: "5" },
      "in-flight": { type: "string", default: "1,8,64,256" },
      swaps: { type: "string", default: "50" },
      json: { type: "string" },
    },
  });
  const names = positionals.length > 0 ? positionals : Object.keys(scenarios);
  for (const name of names) {
    if (!Object.hasOwn(scenarios, name))
      throw new Error(`there is no scenario ${name}; these are: ${Object.keys(scenarios).join(", ")}`);
  }
  const options: BenchOptions = {
    network: values.network,
    rounds: Number(values.rounds),
    seconds: Number(values.seconds),
    warmUpSeconds: Number(values["warm-up"]),
    inFlight: values["in-flight"].split(",").map(Number),
    swaps: Number(values.swaps),
  };
  return { names, options, json: values.json };
}

/** What ONNX Runtime says of the first images. */
async function expectedAnswers(onnx: Uint8Array, images: readonly SampleImage[]): Promise<number[][]> {
  const session = await InferenceSession.create(onnx, { intraOpNumThreads: 1, logSeverityLevel: 3 });
  const answers: number[][] = [];
  for (const { pixels } of images.slice(0, checkedImages)) {
    const input = new Tensor("uint8", pixels, [1, shape.channels, shape.height, shape.width]);
    const { probabilities } = await session.run({ pixels: input }, ["probabilities"]);
    answers.push(Array.from((probabilities?.data ?? []) as Float32Array));
  }
  await session.release();
  return answers;
}

async function main(): Promise<void> {
  const { names, options, json } = readArguments();
  const home = await mkdtemp(join(tmpdir(), "millrace-bench-"));
  try {
    const images = await sampleImages(imageCount);
    const [model, other] = [buildModel(options.network, 1), buildModel(options.network, 2)];
    const expected = await expectedAnswers(model.onnx, images);
    await using hub = await openHub({ home, versions: [model, other], images });
    using generator = startGenerator();
    const bench: Bench = { options, home, images, model, expected, hub, generator };
    const { network, rounds, seconds } = options;
    console.log(`network ${network}, ${rounds} rounds of ${seconds} s\n${machine()}`);
    const tables: Record<string, Table> = {};
    for (const name of names) {
      // A scenario that has exchanged the model leaves whichever came last.
      await hub.promote(1);
      const table = await scenarios[name]?.(bench);
      if (table === undefined) continue;
      tables[name] = table;
      console.log(`\n${tableLines(table).join("\n")}`);
    }
    if (json !== undefined)
      await writeFile(json, `${JSON.stringify({ machine: machine(), options, tables }, null, 2)}\n`);
  } finally {
    await rm(home, { recursive: true, force: true });
  }
}

// Servers are in process groups of their own and end with this process, if it ends by itself.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1));

try {
  await main();
} catch (thrown) {
  console.error(AppError.from(thrown).message);
  process.exitCode = 1;
}

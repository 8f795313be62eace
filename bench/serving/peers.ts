/** The Python servers that we compare with: each file in bench/peers/serving is one. */
import { availableParallelism } from "node:os";
import { join } from "node:path";
import type { SampleImage } from "./images.ts";
import { freePort, launch, type RunningServer, untilAnswered } from "./servers.ts";
import { inferGrpc, postJpeg, postPixels, targetOf, type Wire } from "./wires.ts";

export interface Peer {
  readonly name: string;
  readonly wire: Wire;
  start(setup: PeerSetup): Promise<RunningServer>;
}

export interface PeerSetup {
  /** What `writeModelFiles` has written. */
  readonly modelFolder: string;
  /** A server is asked with these until it answers. */
  readonly images: readonly SampleImage[];
}

interface PeerProgram {
  readonly name: string;
  /** In bench/peers/serving. */
  readonly script: string;
  readonly wire: Wire;
  /** Processes that answer; default 1. */
  readonly workers?: number;
}

/** The name that the model has in mlserver_onnxruntime.py. */
const mlserverModel = "bench";

const programs: readonly PeerProgram[] = [
  { name: "MLServer, ModelInfer", script: "mlserver_onnxruntime.py", wire: inferGrpc(mlserverModel) },
  { name: "LitServe, JPEG", script: "litserve_onnxruntime.py", wire: postJpeg },
  { name: "FastAPI, JPEG", script: "fastapi_onnxruntime.py", wire: postJpeg },
  { name: "FastAPI, 2 workers, JPEG", script: "fastapi_onnxruntime.py", wire: postJpeg, workers: 2 },
  { name: "Flask with TensorFlow, JSON", script: "flask_tensorflow.py", wire: postPixels },
];

export const peers: readonly Peer[] = programs.map((program) => ({
  name: program.name,
  wire: program.wire,
  start: (setup) => start(program, setup),
}));

/** Starts a server and waits for its first answer. Rejects with what it said last if it cannot run. */
async function start(
  { script, wire, workers = 1 }: PeerProgram,
  { modelFolder, images }: PeerSetup,
): Promise<RunningServer> {
  const port = await freePort();
  const launched = launch({
    command: process.env.MILLRACE_BENCH_PYTHON ?? "python3",
    args: [join(import.meta.dirname, "../peers/serving", script)],
    env: {
      ...process.env,
      BENCH_MODEL: modelFolder,
      BENCH_PORT: String(port),
      BENCH_WORKERS: String(workers),
      // Beside the thread that speaks HTTP, as our service has it.
      BENCH_THREADS: String(Math.max(1, Math.floor((availableParallelism() - 1) / workers))),
    },
  });
  const address = `127.0.0.1:${port}`;
  try {
    const startUpMs = await untilAnswered(launched, targetOf(wire, address, images));
    const { pid = 0 } = launched.child;
    return { address, pid, startUpMs, [Symbol.asyncDispose]: () => launched[Symbol.asyncDispose]() };
  } catch (thrown) {
    await launched[Symbol.asyncDispose]();
    throw thrown;
  }
}

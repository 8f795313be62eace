/**
 * What the machine could answer at most: ONNX Runtime alone on tensors in batches, and decoding JPEGs first, without a server and
 * without a client. A process of its own, so that nothing else lives in it; `startCeiling` starts it.
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { decodeImage } from "../../lib/images/decode-image.ts";
import { typeScriptOptions } from "../../lib/type-script.ts";
import type { SampleImage } from "./images.ts";
import { shape } from "./model.ts";

/** What is done to each batch: both use no more than the threads given, one step after another. */
export type CeilingWork = "infer" | "decode and infer";

export interface CeilingOrder {
  readonly work: CeilingWork;
  readonly batchSize: number;
  readonly seconds: number;
}

export interface CeilingReport {
  readonly perSecond: number;
  readonly cpuSeconds: number;
  readonly seconds: number;
}

export interface Ceiling extends Disposable {
  measure(order: CeilingOrder): Promise<CeilingReport>;
}

interface Setup {
  readonly onnx: Uint8Array;
  readonly images: readonly SampleImage[];
  readonly threads: number;
}

/** Starts the process with a model, images, and the number of threads that it may keep busy. */
export async function startCeiling(setup: Setup): Promise<Ceiling> {
  const child = fork(fileURLToPath(import.meta.url), [], {
    execArgv: [...typeScriptOptions],
    serialization: "advanced",
    env: { ...process.env, UV_THREADPOOL_SIZE: String(setup.threads) },
  });
  const ask = async <Answer>(message: Setup | CeilingOrder): Promise<Answer> => {
    child.send(message);
    const [answer] = (await once(child, "message")) as [Answer];
    return answer;
  };
  await ask(setup);
  return { measure: (order) => ask<CeilingReport>(order), [Symbol.dispose]: () => void child.kill() };
}

async function createWorker({
  onnx,
  images,
  threads,
}: Setup): Promise<(order: CeilingOrder) => Promise<CeilingReport>> {
  const session = await InferenceSession.create(onnx, { intraOpNumThreads: threads, logSeverityLevel: 3 });
  const imageBytes = shape.channels * shape.height * shape.width;
  const pixelsOf = async (work: CeilingWork, image: SampleImage): Promise<Uint8Array> =>
    work === "infer" ? image.pixels : decodeImage(image.jpeg, shape);
  return async ({ work, batchSize, seconds }) => {
    const batch = new Uint8Array(batchSize * imageBytes);
    const feeds = {
      pixels: new Tensor("uint8", batch, [batchSize, shape.channels, shape.height, shape.width]),
    };
    const chosen = Array.from({ length: batchSize }, (_, index) => images[index % images.length] as SampleImage);
    const cpuBefore = process.cpuUsage();
    const startedMs = performance.now();
    let answered = 0;
    for (; performance.now() - startedMs < seconds * 1_000; answered += batchSize) {
      const decoded = await Promise.all(chosen.map((image) => pixelsOf(work, image)));
      for (const [index, pixels] of decoded.entries()) batch.set(pixels, index * imageBytes);
      await session.run(feeds, ["probabilities"]);
    }
    const elapsed = (performance.now() - startedMs) / 1_000;
    const { user, system } = process.cpuUsage(cpuBefore);
    return { perSecond: answered / elapsed, cpuSeconds: (user + system) / 1e6, seconds: elapsed };
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url) && process.send !== undefined) {
  // Whoever wanted to know is gone.
  process.once("disconnect", () => process.exit());
  const [setup] = (await once(process, "message")) as [Setup];
  const measure = await createWorker(setup);
  process.on("message", async (order: CeilingOrder) => process.send?.(await measure(order)));
  process.send("ready");
}

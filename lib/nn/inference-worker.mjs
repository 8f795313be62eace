// @ts-check
/**
 * The thread of a model: it loads one, runs it, lets go of it, and can load the next. Requests are answered one after another.
 *
 * Plain JavaScript that imports ONNX Runtime and nothing else: so it starts in 0.08 s of processor time. In TypeScript it needs tsx, which takes
 * 0.3 s more; reading a model's description here as well makes it 1 s (Node 20, AMD EPYC).
 */
import { parentPort } from "node:worker_threads";
import { InferenceSession, Tensor } from "onnxruntime-node";

/** @import { InferenceReply, InferenceRequest } from "./inference-thread.ts" */

/** @type {InferenceSession | undefined} */
let session;

/** @type {Promise<unknown>} */
let last = Promise.resolve();

parentPort?.on("message", (/** @type {InferenceRequest} */ request) => {
  last = last.then(() => take(request));
});

/** @param {InferenceRequest} request */
async function take(request) {
  // Without a port to listen to, the thread ends.
  if (request.kind === "end") return parentPort?.close();
  const reply = await answer(request).catch(failure);
  parentPort?.postMessage(reply, reply.kind === "predictions" ? [reply.probabilities.buffer] : []);
}

/**
 * @param {Exclude<InferenceRequest, { kind: "end" }>} request
 * @returns {Promise<InferenceReply>}
 */
async function answer(request) {
  switch (request.kind) {
    case "load":
      session = await InferenceSession.create(request.onnx, {
        intraOpNumThreads: request.intraOpThreads,
        logSeverityLevel: 3,
      });
      return { kind: "done" };
    case "run": {
      if (session === undefined) throw new Error("no model is loaded");
      const started = performance.now();
      const feeds = { pixels: new Tensor("uint8", request.pixels, request.shape) };
      const { probabilities: output } = await session.run(feeds, ["probabilities"]);
      // Copied, because the values belong to ONNX Runtime, and what goes to another thread must not.
      const probabilities = new Float32Array(/** @type {Float32Array} */ (output?.data));
      return { kind: "predictions", probabilities, durationMs: performance.now() - started };
    }
    case "unload":
      await session?.release();
      session = undefined;
      return { kind: "done" };
  }
}

/**
 * @param {unknown} thrown
 * @returns {InferenceReply}
 */
function failure(thrown) {
  return { kind: "failed", message: thrown instanceof Error ? thrown.message : String(thrown) };
}

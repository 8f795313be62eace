/** Threads that models come to and leave. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { ModelProtoSchema } from "../../../gen/onnx/onnx_pb.ts";
import { createInferenceThreads, type InferenceWorker } from "../../../lib/nn/inference.ts";
import { startInferenceThread } from "../../../lib/nn/inference-thread.ts";
import { buildUntrainedModel } from "../../helpers/served-model.ts";
import { collectThreads } from "../../helpers/threads.ts";

const [first, second] = [buildUntrainedModel({ seed: 1 }), buildUntrainedModel({ seed: 2 })];
const imageBytes = 3 * 16 * 16;
const image = Uint8Array.from({ length: imageBytes }, (_, index) => index % 251);

/** Threads, those of them that were started, and how to load a model into one. */
function setUp(t: TestContext) {
  const started = collectThreads(t);
  const threads = createInferenceThreads();
  const load = (onnx: Uint8Array) => threads.load({ onnx, intraOpThreads: 1 });
  return { started, threads, load };
}

/** Describes itself well, and cannot be run. */
function withUnknownOperator(onnx: Uint8Array): Uint8Array {
  const model = fromBinary(ModelProtoSchema, onnx);
  for (const node of model.graph?.node ?? []) node.opType = "Unheard";
  return toBinary(ModelProtoSchema, model);
}

const unload = (model: InferenceWorker) => model[Symbol.asyncDispose]();
const probabilities = async (model: InferenceWorker) => [...(await model.run(image, 1)).probabilities];

test("models are exchanged between two threads, and each answers with its own weights", async (t) => {
  const { started, threads, load } = setUp(t);
  await using _ = threads;
  let live = await load(first);
  const expected = await probabilities(live);
  for (const onnx of [second, first, second, first]) {
    const next = await load(onnx);
    const answer = await probabilities(next);
    if (onnx === first) assert.deepEqual(answer, expected);
    else assert.notDeepEqual(answer, expected);
    await unload(live);
    live = next;
  }
  assert.equal(started.length, 2);
  await unload(live);
});

test("of the threads that models leave, one is kept", async (t) => {
  const { started, threads, load } = setUp(t);
  const models = await Promise.all([load(first), load(second), load(first)]);
  await Promise.all(models.map(unload));
  const isRunning = () => started.filter(({ threadId }) => threadId !== -1).length;
  assert.equal(isRunning(), 1);
  await threads[Symbol.asyncDispose]();
  assert.equal(isRunning(), 0);
});

test("a thread that dies tells its model alone, and no other model gets it", async (t) => {
  const { started, threads, load } = setUp(t);
  await using _ = threads;
  await using survivor = await load(second);
  const model = await load(first);
  const underWay = model.run(image, 1).catch((error: unknown) => error);
  await started[1]?.terminate();
  const reason = await model.lost;
  assert.equal(reason.code, "MODEL_NOT_READY");
  assert.equal(model.alive, false);
  await assert.rejects(model.run(image, 1), reason);
  await underWay;
  await unload(model);
  assert.ok(survivor.alive);
  await using next = await load(first);
  assert.equal(started.length, 3);
  assert.equal((await probabilities(next)).length, 3);
});

test("a model that left its thread does not hear of the thread's end", async (t) => {
  const { started, threads, load } = setUp(t);
  await using _ = threads;
  const former = await load(first);
  let told = false;
  void former.lost.then(() => {
    told = true;
  });
  await unload(former);
  const model = await load(second);
  await started[0]?.terminate();
  await model.lost;
  assert.equal(told, false);
});

test("a thread that does not answer in time counts as dead, whatever it still does", async () => {
  const thread = startInferenceThread(1);
  const deaths: string[] = [];
  thread.onDeath = ({ code }) => deaths.push(code);
  await assert.rejects(thread.load({ onnx: first }), { code: "MODEL_NOT_READY", message: /did not answer for 1 ms/ });
  await assert.rejects(thread.unload(), { code: "MODEL_NOT_READY" });
  assert.deepEqual(deaths, ["MODEL_NOT_READY"]);
  await thread.end();
});

test("a thread that dies while it waits for a model is replaced", async (t) => {
  const { started, threads, load } = setUp(t);
  await using _ = threads;
  await unload(await load(first));
  await started[0]?.terminate();
  await using model = await load(first);
  assert.equal(started.length, 2);
  assert.ok(model.alive);
});

test("a model that cannot be loaded leaves the thread to the next", async (t) => {
  const { started, threads, load } = setUp(t);
  await using _ = threads;
  await assert.rejects(load(withUnknownOperator(first)), {
    code: "ARTIFACT_CORRUPT",
    message: "ONNX Runtime cannot load the model",
  });
  await using model = await load(first);
  assert.equal((await probabilities(model)).length, 3);
  assert.equal(started.length, 1);
});

test("a model unloaded in the middle of a run lets the next one have a thread that answers it alone", async (t) => {
  const { started, threads, load } = setUp(t);
  await using _ = threads;
  await using reference = await load(second);
  const expected = await probabilities(reference);
  const model = await load(first);
  const underWay = model.run(new Uint8Array(256 * imageBytes), 256);
  const waiting = model.run(image, 1);
  await unload(model);
  assert.equal((await waiting).probabilities.length, 3);
  assert.equal((await underWay).probabilities.length, 256 * 3);
  await using next = await load(second);
  assert.deepEqual(await probabilities(next), expected);
  assert.equal(started.length, 2);
});

test("what is loaded when the threads are closed answers on, and its thread ends with it", async (t) => {
  const { started, threads, load } = setUp(t);
  const model = await load(first);
  await threads[Symbol.asyncDispose]();
  assert.equal((await probabilities(model)).length, 3);
  await unload(model);
  assert.equal(started[0]?.threadId, -1);
});

test("fifty swaps leave no memory and no handle behind", async (t) => {
  const ports = () => process.getActiveResourcesInfo().filter((name) => name === "MessagePort").length;
  const portsBefore = ports();
  const { started, threads, load } = setUp(t);
  const large = buildUntrainedModel({ network: "speedrun" });
  let live = await load(large);
  const swap = async () => {
    const next = await load(large);
    await probabilities(next);
    await unload(live);
    live = next;
  };
  // The first swaps fill caches and heaps.
  for (let count = 0; count < 20; count++) await swap();
  const before = process.memoryUsage.rss();
  for (let count = 0; count < 50; count++) await swap();
  const grownBytes = process.memoryUsage.rss() - before;
  // Each that stayed would hold its weights at the least.
  assert.ok(grownBytes < 25 * large.byteLength, `grown by ${grownBytes} bytes, a model has ${large.byteLength}`);
  assert.equal(started.length, 2);
  await unload(live);
  await threads[Symbol.asyncDispose]();
  assert.equal(ports(), portsBefore);
});

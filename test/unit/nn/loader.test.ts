/** The thread that makes batches ahead of the training. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { allocateBatch, createBatchMaker } from "../../../lib/nn/batches.ts";
import { resolveTrainingConfig } from "../../../lib/nn/configuration.ts";
import { type BatchLoader, type LoaderOptions, startLoader } from "../../../lib/nn/loader.ts";
import { train } from "../../../lib/nn/trainer.ts";
import type { MaskInput } from "../../../lib/nn/training-graph.ts";
import { blotData } from "./training-data.ts";

const data = blotData({ images: 50 });
const masks: readonly MaskInput[] = [
  { name: "first", shape: [8, 6], rate: 0.3 },
  { name: "second", shape: [8, 2, 2], rate: 0.5 },
];
const augmentation = { horizontalFlip: "alternating", translation: 2, cutout: 3, colorJitter: 0.3, mixup: 0.4 };
const config = resolveTrainingConfig("small", { batchSize: 8, augmentation, classWeights: "balanced" });
const images = Uint32Array.from(data.labels, (_, index) => index).subarray(5);
const options: LoaderOptions = { data, config, masks, images, firstStep: 0, steps: 20 };

/** A loader that is closed after the test, which must leave no thread behind. */
function start(t: TestContext, changes: Partial<LoaderOptions> = {}, program?: string): BatchLoader {
  const entry = program === undefined ? undefined : new URL(`data:text/javascript,${encodeURIComponent(program)}`);
  const loader = startLoader({ ...options, ...changes }, entry);
  t.after(async () => {
    await loader.close();
    assert.deepEqual(openPorts(), []);
  });
  return loader;
}

/** Every thread that runs holds a port open. */
function openPorts(): string[] {
  return process.getActiveResourcesInfo().filter((name) => name === "MessagePort");
}

test("a loader gives the very batches that are made without it, from any step on", async (t) => {
  const maker = createBatchMaker(options);
  const expected = allocateBatch(options);
  for (const firstStep of [0, 13]) {
    const loader = start(t, { firstStep });
    await loader.ready();
    await loader.ready();
    for (let step = firstStep; step < options.steps; step++) {
      maker.fill(step, expected);
      assert.deepEqual(await loader.next(), expected, `step ${step}`);
    }
    await loader.ready();
    await assert.rejects(loader.next(), { code: "INTERNAL", message: /no batch after the last of 20 steps/ });
    await loader.close();
  }
});

test("a batch stays as it is until the next is asked for, and cannot be used after that", async (t) => {
  const loader = start(t);
  const first = await loader.next();
  const copy = structuredClone(first);
  for (let turn = 0; turn < 100; turn++) await new Promise(setImmediate);
  assert.deepEqual(first, copy);
  await loader.next();
  assert.deepEqual([first.pixels.length, first.targets.length], [0, 0]);
});

test("closing ends a thread that has just been started, one that waits and one that works", async (t) => {
  await start(t).close();
  const waiting = start(t);
  await waiting.next();
  await waiting.close();
  await waiting.close();
  const working = start(t, { masks: [{ name: "huge", shape: [100_000_000], rate: 0.5 }] });
  await working.close();
  assert.deepEqual(openPorts(), []);
});

test("closing rejects a call that waits for a batch", async (t) => {
  const loader = start(t, {}, "setInterval(() => undefined, 1000)");
  const rejected = assert.rejects(loader.next(), { code: "INTERNAL", message: /thread that makes batches has ended/ });
  await loader.close();
  await rejected;
});

test("an error in the thread is thrown by next with its code", async (t) => {
  const loader = start(t, { masks: [{ name: "broken", shape: [-1], rate: 0.5 }] });
  await assert.rejects(loader.next(), { name: "AppError", code: "INTERNAL", message: /Invalid typed array length/ });
  await assert.rejects(loader.next(), { name: "AppError", code: "INTERNAL", message: /has ended/ });
});

const deaths = {
  "that exits": { program: "process.exit(3)", message: /has ended/ },
  "that throws": { program: "throw new Error('no more')", message: /failed: no more/ },
  "that cannot be loaded": { program: "import 'millrace:nothing'", message: /failed: / },
};

for (const [name, { program, message }] of Object.entries(deaths)) {
  test(`a thread ${name} is an error of next, not a wait for ever`, async (t) => {
    const loader = start(t, {}, program);
    await assert.rejects(loader.next(), { name: "AppError", code: "INTERNAL", message });
    await assert.rejects(loader.next(), { name: "AppError", code: "INTERNAL" });
  });
}

test("a training that is cancelled or fails leaves no thread behind", async () => {
  let asked = 0;
  const request = { network: "small", data, config };
  await assert.rejects(
    train(request, {}, () => ++asked > 4),
    { code: "CANCELLED" },
  );
  assert.deepEqual(openPorts(), []);
  const onCheckpoint = (): void => {
    throw new Error("no room");
  };
  await assert.rejects(
    train(request, { onCheckpoint }, () => false),
    /no room/,
  );
  assert.deepEqual(openPorts(), []);
});

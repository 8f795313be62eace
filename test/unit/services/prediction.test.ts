import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import sharp from "sharp";
import { ErrorInfoSchema } from "../../../gen/google/rpc/error_details_pb.ts";
import {
  GetModelRequestSchema,
  PredictBatchRequestSchema,
  PredictRequestSchema,
  type PredictResponse,
  PredictStreamRequestSchema,
  type PredictStreamResponse,
  UpdateBatchingRequestSchema,
} from "../../../gen/millrace/v1/prediction_pb.ts";
import { AppError } from "../../../lib/errors.ts";
import { createImageFetcher } from "../../../lib/images/image-url.ts";
import { createLogger } from "../../../lib/log.ts";
import type { BatchSettings } from "../../../services/prediction/batch-settings.ts";
import { createPrediction, type Prediction } from "../../../services/prediction/handlers.ts";
import { type ServingOptions, startServing } from "../../helpers/served-model.ts";
import { tempFolder } from "../../helpers/temp-folder.ts";

const defaults: BatchSettings = { maxBatchSize: 8, maxDelayMs: 0, maxQueueLength: 100, maxWaitMs: 60_000 };
const never = new AbortController().signal;

async function startPrediction(
  t: TestContext,
  settings: Partial<BatchSettings> = {},
  options: Partial<ServingOptions> = {},
): Promise<Prediction> {
  const serving = await startServing(await tempFolder(t), { batching: { ...defaults, ...settings }, ...options });
  t.after(() => serving[Symbol.asyncDispose]());
  const logger = createLogger({ service: "test", level: "silent" });
  return createPrediction({ ...serving, fetchImage: createImageFetcher([]), shareBatching: () => {}, logger });
}

/** Pictures that no two are alike, so that an answer that went to another's image shows. */
function picture(index: number): Promise<Buffer> {
  const background = { r: (index * 67) % 256, g: (index * 151) % 256, b: (index * 31) % 256 };
  return sharp({ create: { width: 16, height: 16, channels: 3, background } })
    .png()
    .toBuffer();
}

const predict = (prediction: Prediction, image: Uint8Array, signal = never): Promise<PredictResponse> =>
  prediction.predict(create(PredictRequestSchema, { input: { case: "image", value: image } }), { signal });

const byClass = ({ predictions }: Pick<PredictResponse, "predictions">): number[] =>
  predictions.toSorted((a, b) => a.classIndex - b.classIndex).map(({ probability }) => probability);

/** Batches of different sizes round differently. */
function assertSame(actual: readonly number[], expected: readonly number[], what: string): void {
  assert.equal(actual.length, expected.length, what);
  for (const [index, value] of actual.entries()) {
    assert.ok(Math.abs(value - (expected[index] ?? 0)) < 1e-4, `${what}: ${actual} is not ${expected}`);
  }
}

test("images that come at the same time share batches, and each has its own answer", async (t) => {
  const prediction = await startPrediction(t);
  const images = await Promise.all(Array.from({ length: 60 }, (_, index) => picture(index)));
  const alone: PredictResponse[] = [];
  for (const image of images) alone.push(await predict(prediction, image));
  const together = await Promise.all(images.map((image) => predict(prediction, image)));
  for (const [index, answer] of together.entries()) {
    assertSame(byClass(answer), byClass(alone[index] ?? answer), `image ${index}`);
  }
  const sizes = together.map(({ timings }) => timings?.batchSize ?? 0);
  assert.ok(Math.max(...sizes) > 1 && Math.max(...sizes) <= defaults.maxBatchSize, `batches of ${sizes}`);
  assert.ok(alone.every(({ timings }) => timings?.batchSize === 1));
});

test("of several images a broken one fails alone, with the error that Predict would have given", async (t) => {
  const prediction = await startPrediction(t);
  const images = [await picture(1), Buffer.from("no image"), Buffer.alloc(0), await picture(2)];
  const { results, model } = await prediction.predictBatch(create(PredictBatchRequestSchema, { images, topK: 1 }), {
    signal: never,
  });
  assert.deepEqual(
    results.map(({ result }) => result.case),
    ["classes", "error", "error", "classes"],
  );
  assert.equal(model?.version, 1);
  for (const [index, { result }] of results.entries()) {
    if (result.case === "classes") assert.equal(result.value.predictions.length, 1);
    if (result.case !== "error") continue;
    const [info] = result.value.details.map((detail) => anyUnpack(detail, ErrorInfoSchema));
    assert.deepEqual([result.value.code, info?.reason], [Code.InvalidArgument, "IMAGE_UNREADABLE"]);
    assert.equal(info?.metadata.field, `images[${index}]`);
  }
  await assert.rejects(predict(prediction, Buffer.from("no image")), { details: { field: "image" } });
});

test("an image's URL is refused unless the service is set up to fetch it", async (t) => {
  const prediction = await startPrediction(t);
  const input = { case: "imageUrl", value: "https://example.org/cat.jpg" } as const;
  await assert.rejects(prediction.predict(create(PredictRequestSchema, { input }), { signal: never }), {
    code: "IMAGE_URL_REFUSED",
    message: /MILLRACE_PREDICTION_IMAGE_URL_HOSTS/,
  });
});

test("more images than may wait are refused with the time to wait, and those before them answered", async (t) => {
  const prediction = await startPrediction(t, { maxQueueLength: 5 });
  const image = await picture(1);
  const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => predict(prediction, image)));
  const refused = outcomes
    .filter((outcome) => outcome.status === "rejected")
    .map(({ reason }) => AppError.from(reason));
  assert.ok(refused.length > 0 && refused.length <= 15, `${refused.length} were refused`);
  for (const { code, details } of refused) {
    assert.equal(code, "QUEUE_FULL");
    assert.ok(Number(details.retryDelayMs) >= 10);
  }
});

test("more bytes than may wait are refused whatever they are sent in, and let go of when they are answered", async (t) => {
  const image = await picture(1);
  const prediction = await startPrediction(t, {}, { waitingBytes: 5 * image.length });
  const batch = () =>
    prediction.predictBatch(create(PredictBatchRequestSchema, { images: [image, image, image] }), { signal: never });
  for (let round = 0; round < 3; round++) {
    const outcomes = await Promise.allSettled([
      batch(),
      predict(prediction, image),
      batch(),
      predict(prediction, image),
    ]);
    assert.deepEqual(
      outcomes.map((outcome) => (outcome.status === "fulfilled" ? "answered" : AppError.from(outcome.reason).code)),
      ["answered", "answered", "QUEUE_FULL", "answered"],
    );
  }
});

test("a call that is over rejects at once, with its reason", async (t) => {
  const prediction = await startPrediction(t, { maxDelayMs: 1_000 });
  const ending = new AbortController();
  const waiting = predict(prediction, await picture(1), ending.signal);
  ending.abort(new AppError("DEADLINE_EXCEEDED", "time is over"));
  await assert.rejects(waiting, { code: "DEADLINE_EXCEEDED" });
  const images = [await picture(1)];
  const batch = prediction.predictBatch(create(PredictBatchRequestSchema, { images }), ending);
  await assert.rejects(batch, { code: "DEADLINE_EXCEEDED" });
});

test("batching changes while it serves; what is not named stays", async (t) => {
  const prediction = await startPrediction(t);
  const update = (changes: Partial<BatchSettings>) =>
    prediction.updateBatching(create(UpdateBatchingRequestSchema, changes));
  const { maxBatchSize, maxDelayMs, maxQueueLength, maxWaitMs } = update({ maxBatchSize: 1 });
  assert.deepEqual({ maxBatchSize, maxDelayMs, maxQueueLength, maxWaitMs }, { ...defaults, maxBatchSize: 1 });
  const image = await picture(1);
  const answers = await Promise.all(Array.from({ length: 10 }, () => predict(prediction, image)));
  assert.ok(answers.every(({ timings }) => timings?.batchSize === 1));
  assert.equal(update({}).maxBatchSize, 1);
});

test("raw pixels are classified as they are, and another number of bytes is refused with the shape that is wanted", async (t) => {
  const prediction = await startPrediction(t);
  const send = (value: Uint8Array) =>
    prediction.predict(create(PredictRequestSchema, { input: { case: "pixels", value } }), { signal: never });
  const encoded = await predict(prediction, await picture(3));
  const { data } = await sharp(await picture(3))
    .raw()
    .toBuffer({ resolveWithObject: true });
  const planes = Uint8Array.from({ length: 768 }, (_, index) => data[(index % 256) * 3 + Math.floor(index / 256)] ?? 0);
  assertSame(byClass(await send(planes)), byClass(encoded), "pixels");
  await assert.rejects(send(planes.subarray(1)), { code: "INVALID_REQUEST", message: /767 bytes.*3 x 16 x 16 = 768/ });
});

test("a stream is answered in its order; a broken image is an answer, and the stream goes on", async (t) => {
  const prediction = await startPrediction(t);
  const images = await Promise.all(Array.from({ length: 150 }, (_, index) => picture(index)));
  images[7] = Buffer.from("no image");
  async function* requests() {
    for (const value of images) {
      yield create(PredictStreamRequestSchema, { request: { input: { case: "image", value } } });
    }
  }
  const results: PredictStreamResponse[] = [];
  for await (const response of prediction.predictStream(requests(), never)) results.push(response);
  assert.equal(results.length, images.length);
  for (const [index, { result }] of results.entries()) {
    assert.equal(result.case, index === 7 ? "error" : "response", `image ${index}`);
    if (result.case !== "response" || index % 10 !== 0) continue;
    assertSame(byClass(result.value), byClass(await predict(prediction, images[index] ?? Buffer.alloc(0))), `${index}`);
  }
});

test("GetModel describes the champion, or the version that is named", async (t) => {
  const prediction = await startPrediction(t, {}, { versions: 2 });
  const describe = (model?: { selector: { case: "version"; value: number } }) =>
    prediction.describe(create(GetModelRequestSchema, { ...(model && { model }) }));
  const champion = await describe();
  assert.deepEqual([champion.model?.version, champion.classes, champion.input?.width], [1, ["cat", "dog", "fox"], 16]);
  const second = await describe({ selector: { case: "version", value: 2 } });
  assert.equal(second.model?.version, 2);
  assert.notEqual(second.model?.digest, champion.model?.digest);
});

/** More than the prediction service can answer, over real gRPC. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Code, ConnectError } from "@connectrpc/connect";
import sharp from "sharp";
import { createMillraceClient, type MillraceClient, reasonOf, retryDelayMsOf } from "../../../client/client.ts";
import type { PredictResponse } from "../../../gen/millrace/v1/prediction_pb.ts";
import { startPredictionService } from "../../helpers/prediction-server.ts";

type Client = MillraceClient["predictions"];
type Outcome =
  | { readonly image: number; readonly answer: PredictResponse }
  | { readonly image: number; readonly error: ConnectError };

const images = await Promise.all(
  Array.from({ length: 16 }, (_, index) =>
    sharp({ create: { width: 64, height: 64, channels: 3, background: { r: index * 16, g: 255 - index * 9, b: 40 } } })
      .jpeg()
      .toBuffer(),
  ),
);

async function startService(t: TestContext, maxWaitMs: number): Promise<Client> {
  const { url } = await startPredictionService(t, { maxQueueLength: 10_000, maxWaitMs });
  const { predictions, close } = createMillraceClient({ baseUrl: url, retries: 0 });
  t.after(close);
  return predictions;
}

async function outcomeOf(client: Client, image: number): Promise<Outcome> {
  const input = { case: "image", value: images[image] as Uint8Array } as const;
  try {
    return { image, answer: await client.predict({ input }) };
  } catch (thrown) {
    return { image, error: ConnectError.from(thrown) };
  }
}

/** So many clients send one request after another until `isOver`, and who is refused waits as it was told. Gives what became of them. */
async function sendFrom(client: Client, count: number, isOver: (outcomes: readonly Outcome[]) => boolean) {
  const outcomes: Outcome[] = [];
  const repeat = async (image: number): Promise<void> => {
    while (!isOver(outcomes)) {
      const outcome = await outcomeOf(client, image);
      outcomes.push(outcome);
      if ("error" in outcome) await delay(retryDelayMsOf(outcome.error));
    }
  };
  await Promise.all(Array.from({ length: count }, (_, index) => repeat(index % images.length)));
  return outcomes;
}

const isAnswer = (outcome: Outcome) => "answer" in outcome;
const byClass = ({ predictions }: PredictResponse): number[] =>
  predictions.toSorted((a, b) => a.classIndex - b.classIndex).map(({ probability }) => probability);

test("of far more requests than can be answered in time some are refused with the time to wait, and the others answered right", async (t) => {
  const client = await startService(t, 20);
  const alone = new Map<number, number[]>();
  for (const image of images.keys()) {
    const outcome = await outcomeOf(client, image);
    assert.ok("answer" in outcome, `alone, image ${image} is answered`);
    alone.set(image, byClass(outcome.answer));
  }
  const endMs = Date.now() + 30_000;
  const enough = (outcomes: readonly Outcome[]): boolean => {
    const answered = outcomes.filter(isAnswer).length;
    return (answered >= 200 && outcomes.length - answered >= 50) || Date.now() > endMs;
  };
  // To answer all of 200 within 20 ms it would have to decode and classify 10,000 a second.
  const outcomes = await sendFrom(client, 200, enough);
  assert.ok(outcomes.filter(isAnswer).length >= 200, "many are answered");
  assert.ok(outcomes.filter((outcome) => !isAnswer(outcome)).length >= 50, "many are refused");
  for (const outcome of outcomes) {
    if ("answer" in outcome) {
      const expected = alone.get(outcome.image) ?? [];
      const actual = byClass(outcome.answer);
      assert.ok(
        actual.every((value, index) => Math.abs(value - (expected[index] ?? 2)) < 1e-4),
        `image ${outcome.image}`,
      );
      continue;
    }
    const { error } = outcome;
    assert.deepEqual([reasonOf(error), error.code], ["QUEUE_FULL", Code.ResourceExhausted], error.message);
    assert.ok((retryDelayMsOf(error) ?? 0) >= 10, "it says when to come again");
  }
  // Nothing is ahead any more.
  for (const image of images.keys()) assert.ok(isAnswer(await outcomeOf(client, image)), "afterwards all are answered");
});

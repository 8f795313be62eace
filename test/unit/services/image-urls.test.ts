/** Images that clients name by their URL, through Predict over gRPC, from a real server on loopback. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import sharp from "sharp";
import { createMillraceClient, type MillraceClient, reasonOf } from "../../../client/client.ts";
import { BadRequestSchema } from "../../../gen/google/rpc/error_details_pb.ts";
import { createImageFetcher } from "../../../lib/images/image-url.ts";
import { flatPng } from "../../helpers/flat-png.ts";
import { startPredictionService } from "../../helpers/prediction-server.ts";
import { rejection } from "../rpc/server-fixture.ts";

const photo = await sharp({ create: { width: 40, height: 30, channels: 3, background: "#c86432" } })
  .png()
  .toBuffer();
const files: Readonly<Record<string, Buffer>> = {
  "/cat.png": photo,
  "/text.png": Buffer.from("no image"),
  "/bomb.png": flatPng({ width: 7_000, height: 7_000, interlaced: true }),
};

/** Serves the files; returns the URL below which they are. No name server knows the host. */
async function startImages(t: TestContext): Promise<string> {
  const server = createServer(({ url = "" }, response) => {
    const file = files[url];
    if (url === "/moved.png") response.writeHead(302, { location: "/cat.png" }).end();
    else if (file === undefined) response.writeHead(404).end();
    else response.writeHead(200, { "content-type": "image/png" }).end(file);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  return `http://images.test:${(server.address() as AddressInfo).port}`;
}

/** As in service, but that one host leads to loopback. */
async function startClient(t: TestContext): Promise<MillraceClient["predictions"]> {
  const fetchImage = createImageFetcher(["images.test"], {
    isAllowed: (address) => address === "127.0.0.1",
    resolve: async () => [{ address: "127.0.0.1", family: 4 }],
  });
  const { url } = await startPredictionService(t, {}, fetchImage);
  const { predictions, close } = createMillraceClient({ baseUrl: url, retries: 0 });
  t.after(close);
  return predictions;
}

const at = (value: string) => ({ input: { case: "imageUrl", value } }) as const;

test("an image behind a URL has the answer that its bytes have, in a stream too", async (t) => {
  const [images, predictions] = [await startImages(t), await startClient(t)];
  const sent = await predictions.predict({ input: { case: "image", value: photo } });
  const expected = sent.predictions.map(({ label, probability }) => [label, probability]);
  async function* requests() {
    yield { request: at(`${images}/moved.png`) };
  }
  const answers = [await predictions.predict(at(`${images}/cat.png`))];
  for await (const { result } of predictions.predictStream(requests())) {
    assert.equal(result.case, "response");
    if (result.case === "response") answers.push(result.value);
  }
  assert.equal(answers.length, 2);
  for (const answer of answers) {
    assert.deepEqual(
      answer.predictions.map(({ label, probability }) => [label, probability]),
      expected,
    );
    assert.ok((answer.timings?.fetchMs ?? 0) > 0, "it says how long it was fetched");
  }
});

test("what is behind a URL and is no image, a bomb, or nothing is an error of the field image_url", async (t) => {
  const [images, predictions] = [await startImages(t), await startClient(t)];
  for (const [path, code, reason] of [
    ["/text.png", Code.InvalidArgument, "IMAGE_UNREADABLE"],
    ["/bomb.png", Code.InvalidArgument, "IMAGE_TOO_LARGE"],
    ["/none.png", Code.FailedPrecondition, "IMAGE_NOT_FETCHED"],
  ] as const) {
    const error = ConnectError.from(await rejection(predictions.predict(at(images + path))));
    assert.deepEqual([error.code, reasonOf(error)], [code, reason], error.message);
    assert.equal(error.findDetails(BadRequestSchema)[0]?.fieldViolations[0]?.field, "image_url");
  }
  const other = predictions.predict(at(images.replace("images.test", "other.test")));
  assert.equal(reasonOf(await rejection(other)), "IMAGE_URL_REFUSED");
});

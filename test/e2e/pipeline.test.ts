import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import sharp from "sharp";
import { createMillraceClient, type MillraceClient, reasonOf } from "../../client/client.ts";
import type { PredictionCompleted } from "../../gen/millrace/v1/events_pb.ts";
import { RunStatus } from "../../gen/millrace/v1/pipeline_pb.ts";
import {
  PredictionService,
  PredictRequestSchema,
  type PredictResponse,
  ServedModelState,
} from "../../gen/millrace/v1/prediction_pb.ts";
import { predictionStream, predictionSubject } from "../../lib/bus/subjects.ts";
import type { ServiceName } from "../../lib/config.ts";
import type { ErrorCode } from "../../lib/errors.ts";
import { eventually, openTestBus, storedEvents } from "../helpers/bus.ts";
import { type FinishedRun, type Platform, smallRun, startPlatform } from "../helpers/platform.ts";
import { createStack } from "../helpers/stack.ts";

// One platform and one run for all tests of this file: each takes a while to start.
const stack = createStack();
let platform: Platform;
let finished: FinishedRun;

before(async () => {
  platform = await startPlatform(stack);
  await assert.rejects(predictOverGrpc(await picture()), hasReason("MODEL_NOT_READY"), "before the first model");
  finished = await platform.run({ spec: smallRun });
  await platform.answersWith(finished.run.modelVersion);
});
after(() => stack.dispose());

function hasReason(reason: ErrorCode): (thrown: unknown) => boolean {
  return (thrown) => {
    assert.equal(reasonOf(thrown), reason, String(thrown));
    return true;
  };
}

function picture(): Promise<Buffer> {
  return sharp({ create: { width: 48, height: 40, channels: 3, background: "#88aaff" } })
    .png()
    .toBuffer();
}

const predictionUrl = () => platform.services.urls.prediction;

/** Makes calls to a service with a client of its own. */
async function calling<T>(service: ServiceName, calls: (millrace: MillraceClient) => Promise<T>): Promise<T> {
  const millrace = createMillraceClient({ baseUrl: platform.services.urls[service], retries: 0 });
  try {
    return await calls(millrace);
  } finally {
    millrace.close();
  }
}

function predictOverGrpc(image: Uint8Array): Promise<PredictResponse> {
  const request = { input: { case: "image", value: image }, topK: 3 } as const;
  return calling("prediction", ({ predictions }) => predictions.predict(request));
}

function checkAnswer(answer: Pick<PredictResponse, "predictions" | "model">): void {
  assert.equal(answer.predictions.length, 3);
  assert.ok((answer.predictions[0]?.probability ?? 0) >= (answer.predictions[1]?.probability ?? 1));
  assert.equal(answer.model?.version, 1);
  assert.equal(answer.model?.runId, finished.run.runId);
  assert.equal(answer.model?.datasetDigest, finished.run.dataset?.digest);
}

test("a run goes from images to a live model", () => {
  const { run } = finished;
  assert.equal(run.status, RunStatus.SUCCEEDED, run.failure?.message);
  assert.deepEqual(
    run.stages.map(({ name }) => name),
    ["ingestion", "training", "evaluation", "prediction"],
  );
  assert.equal(run.dataset?.classes.length, 10);
  assert.equal(run.evaluation?.confusionMatrix.length, 100);
  assert.equal(
    run.evaluation?.confusionMatrix.reduce((sum, n) => sum + n, 0),
    run.evaluation?.imageCount,
  );
  assert.ok((run.evaluation?.parity?.maxProbabilityDifference ?? 1) < 1e-4, "ONNX and TensorFlow.js agree");
  assert.equal(run.decision?.promote, true);
  assert.match(run.traceId, /^[0-9a-f]{32}$/);
});

test("curl with JSON gets a prediction", async () => {
  const { execFile } = await import("node:child_process");
  const { promisify } = await import("node:util");
  const body = JSON.stringify({ image: (await picture()).toString("base64"), topK: 3 });
  const url = `${predictionUrl()}/${PredictionService.typeName}/Predict`;
  const { stdout } = await promisify(execFile)("curl", [
    "-sf",
    "-H",
    "content-type: application/json",
    "-d",
    body,
    url,
  ]);
  checkAnswer(JSON.parse(stdout));
});

test("a Connect client gets a prediction", async () => {
  const transport = createConnectTransport({ baseUrl: predictionUrl(), httpVersion: "1.1" });
  const client = createClient(PredictionService, transport);
  checkAnswer(await client.predict({ input: { case: "image", value: await picture() }, topK: 3 }));
});

test("a gRPC-Web client gets a prediction", async () => {
  const transport = createGrpcWebTransport({ baseUrl: predictionUrl(), httpVersion: "1.1" });
  const client = createClient(PredictionService, transport);
  checkAnswer(await client.predict({ input: { case: "image", value: await picture() }, topK: 3 }));
});

test("a grpc-js client gets a prediction", async () => {
  checkAnswer(await predictOverGrpc(await picture()));
});

test("several images in one call get an answer each, and a broken one its error", async () => {
  const images = [await picture(), Buffer.from("no image"), await picture()];
  const { results, model } = await calling("prediction", (client) =>
    client.predictions.predictBatch({ images, topK: 3 }),
  );
  assert.deepEqual(
    results.map(({ result }) => result.case),
    ["classes", "error", "classes"],
  );
  assert.equal(model?.runId, finished.run.runId);
});

test("a stream of images is answered in its order over gRPC, one at a time and many at once", async () => {
  const transport = createGrpcTransport({ baseUrl: predictionUrl() });
  const client = createClient(PredictionService, transport);
  const images = [await picture(), Buffer.from("no image"), await picture()];
  async function* requests() {
    for (let n = 0; n < 100; n++) {
      yield { request: { input: { case: "image", value: images[n % 3] ?? Buffer.alloc(0) }, topK: 3 } } as const;
    }
  }
  const cases: (string | undefined)[] = [];
  for await (const { result } of client.predictStream(requests())) {
    cases.push(result.case);
    if (result.case === "response") checkAnswer(result.value);
  }
  const expected = Array.from({ length: 100 }, (_, n) => (n % 3 === 1 ? "error" : "response"));
  assert.deepEqual(cases, expected);
});

test("what was answered is told in events, and feedback on it is stored", async () => {
  const { predictionId, predictions } = await predictOverGrpc(await picture());
  const [best] = predictions;
  const feedback = (label: string) =>
    calling("prediction", (client) => client.predictions.sendFeedback({ predictionId, label }));
  assert.deepEqual((await feedback(best?.label ?? "")).correct, true);
  await assert.rejects(feedback("unicorn"), hasReason("INVALID_REQUEST"));
  const { models } = await calling("prediction", (client) => client.predictions.listServedModels({}));
  assert.deepEqual(
    models.map(({ model, aliases, state }) => [model?.version, aliases, state]),
    [[1, ["champion"], ServedModelState.READY]],
  );
  await using bus = await openTestBus(platform.nats);
  await eventually("the answer is told", async () => {
    const events = await storedEvents(bus, predictionSubject("default", "prediction.completed"), predictionStream);
    const told = events.flatMap(({ message }) => (message as unknown as PredictionCompleted).predictions);
    return told.some((prediction) => prediction.predictionId === predictionId);
  });
  const told = await storedEvents(bus, predictionSubject("default", "prediction.feedback"), predictionStream);
  assert.deepEqual(
    told.map(({ correlationId }) => correlationId),
    [finished.run.runId],
  );
});

test("bytes that are no image are an error that says so", async () => {
  await assert.rejects(predictOverGrpc(Buffer.from("no image at all")), hasReason("IMAGE_UNREADABLE"));
  const invalid = create(PredictRequestSchema);
  const refused = calling("prediction", ({ predictions }) => predictions.predict(invalid));
  await assert.rejects(refused, (thrown) => ConnectError.from(thrown).code === Code.InvalidArgument);
});

test("each stage answers a request of its own, with the same results", async () => {
  const { urls } = platform.services;
  const clientOf = (service: ServiceName) => createMillraceClient({ baseUrl: urls[service] });
  const clients = {
    ingestion: clientOf("ingestion"),
    training: clientOf("training"),
    evaluation: clientOf("evaluation"),
  };
  const { datasets } = clients.ingestion;
  const { training } = clients.training;
  const { evaluation } = clients.evaluation;
  try {
    const prepared = await last(datasets.prepareDataset({ spec: smallRun.dataset }));
    assert.equal(prepared?.update.case, "dataset");
    const digest = prepared?.update.case === "dataset" ? prepared.update.value.digest : "";
    assert.equal(digest, finished.run.dataset?.digest, "the same data set as in the run");
    assert.equal((await datasets.getDataset({ digest })).manifest?.classes.length, 10);

    const request = { datasetDigest: digest, spec: smallRun.training, modelName: "by-request" };
    const trained = await last(training.train(request));
    assert.equal(trained?.update.case, "model");
    const version = trained?.update.case === "model" ? trained.update.value.version : 0;
    assert.equal(version, 1);

    const measured = await last(evaluation.evaluate({ modelName: "by-request", version }));
    const report = measured?.update.case === "report" ? measured.update.value : undefined;
    assert.equal(
      report?.accuracy,
      finished.run.evaluation?.accuracy,
      "the same weights as in the run, the same accuracy",
    );
    const { networks } = await training.listNetworks({});
    assert.ok(networks.some(({ name }) => name === "small"));
  } finally {
    for (const client of Object.values(clients)) client.close();
  }
});

async function last<T>(stream: AsyncIterable<T>): Promise<T | undefined> {
  let latest: T | undefined;
  for await (const item of stream) latest = item;
  return latest;
}

test("the same request sent twice is one run", async () => {
  const { runId } = finished.run;
  const { runId: again } = await platform.pipeline.requestRun({ spec: smallRun, runId });
  assert.equal(again, runId);
  const { runs } = await platform.pipeline.listRuns({});
  assert.equal(runs.filter((run) => run.runId === runId).length, 1);
});

test("a source that is not there fails the run with the reason, and keeps the message as a dead letter", async () => {
  const { run } = await platform.run({ spec: { ...smallRun, dataset: { source: "/nowhere/at-all" } } });
  assert.equal(run.status, RunStatus.FAILED);
  assert.equal(run.failure?.stage, "ingestion");
  assert.match(run.failure?.message ?? "", /\/nowhere\/at-all/);
  assert.ok((run.failure?.deadLetterSequence ?? 0n) > 0n);
});

test("an unknown network is refused before any work", async () => {
  const spec = { ...smallRun, training: { network: "no-such-network" } };
  await assert.rejects(platform.pipeline.requestRun({ spec }), hasReason("NETWORK_UNKNOWN"));
  const odd = { ...smallRun, training: { hyperparameters: { learningRat: 1 } } };
  await assert.rejects(platform.pipeline.requestRun({ spec: odd }), hasReason("CONFIGURATION_INVALID"));
});

test("a run that is cancelled in training stops and leaves no model", async () => {
  const spec = { ...smallRun, training: { network: "small", epochs: 500 }, modelName: "cancelled" };
  const { run } = await platform.run({ spec }, async ({ event }, { runId }) => {
    if (event.case === "trainingEpochCompleted" && event.value.metrics?.epoch === 1) {
      await platform.pipeline.cancelRun({ runId, reason: "a test" });
    }
  });
  assert.equal(run.status, RunStatus.CANCELLED);
  await assert.rejects(platform.registry.listModelVersions({ name: "cancelled" }), hasReason("MODEL_NOT_FOUND"));
  await assert.rejects(platform.pipeline.cancelRun({ runId: run.runId }), hasReason("RUN_ENDED"));
  // The training service is free again: the next run gets through.
  const next = await platform.run({ spec: { ...smallRun, modelName: "after-cancelled" } });
  assert.equal(next.run.status, RunStatus.SUCCEEDED);
});

test("rolling back is one call, and the prediction service follows", async () => {
  // The same training again gives an equal model, which the gate lets through.
  const { run } = await platform.run({ spec: smallRun });
  await platform.answersWith(run.modelVersion);
  assert.equal(run.decision?.promote, true, run.decision?.checks.map(({ message }) => message).join("; "));
  const name = "default";
  await assert.rejects(platform.registry.moveAlias({ name, version: 1, expectedVersion: 99 }), hasReason("CONFLICT"));
  await platform.registry.rollBack({ name, expectedVersion: run.modelVersion, reason: "a test" });
  await platform.answersWith(1);
});

test("one trace runs through all services, from the request to the first prediction", async () => {
  const spans = await eventually("the first prediction is in the trace", async () => {
    const found = await spansOf(finished.run.traceId);
    return found.some(({ name }) => name === "first prediction") && found;
  });
  const services = new Set(spans.map(({ service }) => service));
  assert.deepEqual([...services].sort(), ["evaluation", "ingestion", "pipeline", "prediction", "training"]);
  const ids = new Set(spans.map(({ spanId }) => spanId));
  const orphans = spans.filter(({ parentSpanId }) => parentSpanId && !ids.has(parentSpanId));
  assert.deepEqual(
    orphans.map(({ name }) => name),
    [],
    "every span's parent is in the trace",
  );
  const roots = spans.filter(({ parentSpanId }) => !parentSpanId);
  assert.equal(roots.length, 1, `one root: ${roots.map(({ name }) => name).join(", ")}`);
  const names = new Set(spans.map(({ service, name }) => `${service}: ${name}`));
  for (const work of workInTrace) assert.ok(names.has(work), `there is no span ${work}`);
  assert.ok(spans.length < 300, `${spans.length} spans`);
});

/** What a person looks for in the trace of a run. */
const workInTrace = [
  "ingestion: prepare dataset",
  "ingestion: open source",
  "ingestion: fill shard",
  "ingestion: write shard",
  "ingestion: artifact put",
  "training: load split",
  "training: artifact get",
  "training: build network",
  "training: epoch",
  "training: store checkpoint",
  "training: store model",
  "training: register version",
  "evaluation: load model",
  "evaluation: classify batch",
  "evaluation: compare engines",
  "evaluation: record evaluation",
  "evaluation: decide",
  "evaluation: move alias",
];

interface WrittenSpan {
  readonly name: string;
  readonly service: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
}

interface OtlpLine {
  readonly resourceSpans: readonly {
    readonly resource: { readonly attributes: readonly { key: string; value: { stringValue?: string } }[] };
    readonly scopeSpans: readonly { readonly spans: readonly (WrittenSpan & { traceId: string })[] }[];
  }[];
}

/** The spans of a trace, as the services wrote them to their files. */
async function spansOf(traceId: string): Promise<WrittenSpan[]> {
  const { traces } = platform.folders;
  const spans: WrittenSpan[] = [];
  for (const file of await readdir(traces)) {
    const lines = (await readFile(join(traces, file), "utf8")).split("\n").filter((line) => line.endsWith("}"));
    for (const { resourceSpans } of lines.map((line) => JSON.parse(line) as OtlpLine)) {
      for (const { resource, scopeSpans } of resourceSpans) {
        const service = resource.attributes.find(({ key }) => key === "service.name")?.value.stringValue ?? "";
        const own = scopeSpans.flatMap((scope) => scope.spans).filter((span) => span.traceId === traceId);
        spans.push(...own.map((span) => ({ ...span, service })));
      }
    }
  }
  return spans;
}

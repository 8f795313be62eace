import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { SpanKind } from "@opentelemetry/api";
import sharp from "sharp";
import { type ServiceName, servicePorts } from "../../lib/config.ts";
import { attributeTable } from "../../lib/telemetry/attributes.ts";
import { type MetricName, metricTable } from "../../lib/telemetry/metric-table.ts";
import { prometheusName } from "../../scripts/generate-telemetry-docs.ts";
import { eventually } from "../helpers/bus.ts";
import { type Jaeger, startJaeger } from "../helpers/jaeger.ts";
import { type OtlpReceiver, orphansOf, type ReceivedSpan, startOtlpReceiver } from "../helpers/otlp-receiver.ts";
import { type FinishedRun, type Platform, smallRun, startPlatform } from "../helpers/platform.ts";
import { createStack } from "../helpers/stack.ts";

/** Goes to the collector with each request, and must not be in one. */
const secret = "swordfish-of-the-test";
/** A trace in which the caller of a prediction is, as it says in the request's header. */
const callersTrace = "0af7651916cd43dd8448eb211c80319c";
const names = Object.keys(servicePorts) as ServiceName[];
const spec = {
  ...smallRun,
  training: { ...smallRun.training, hyperparameters: { validationShare: 0.1 } },
};

// One platform and one run for all tests of this file: each takes a while to start.
const stack = createStack();
let receiver: OtlpReceiver;
let platform: Platform;
let finished: FinishedRun;
/** The spans of the run's trace, from the request to the first prediction; as Jaeger tells them, where there is one. */
let runSpans: readonly ReceivedSpan[];

before(async () => {
  const { TEST_JAEGER } = process.env;
  const jaeger = TEST_JAEGER ? await startJaeger(stack, TEST_JAEGER) : undefined;
  receiver = await startOtlpReceiver(stack, { forwardTracesTo: jaeger?.tracesUrl });
  platform = await startPlatform(stack, {
    ...receiver.env,
    // The least that may be kept: a run is complete all the same.
    MILLRACE_TRACE_SHARE: "0",
    OTEL_EXPORTER_OTLP_HEADERS: `authorization=${secret}`,
    OTEL_METRIC_EXPORT_INTERVAL: "500",
    // The SDK then counts its spans, the open ones too.
    OTEL_NODE_EXPERIMENTAL_SDK_METRICS: "true",
  });
  finished = await platform.run({ spec });
  await platform.answersWith(finished.run.modelVersion);
  const background = "#88aaff";
  const image = await sharp({ create: { width: 48, height: 40, channels: 3, background } })
    .png()
    .toBuffer();
  const statuses = [
    await predict(image),
    await predict(image, { traceparent: `00-${callersTrace}-b7ad6b7169203331-01` }),
    await predict(Buffer.from("no image")),
  ];
  assert.deepEqual(statuses, [200, 200, 400]);
  runSpans = await eventually("the trace is complete", async () => {
    const spans = await traceOf(finished.run.traceId, jaeger);
    return spans.some(({ name }) => name === "first prediction") && orphansOf(spans).length === 0 && spans;
  });
});
after(() => stack.dispose());

/** Asks for a prediction and returns the HTTP status. */
async function predict(image: Buffer, headers: Readonly<Record<string, string>> = {}): Promise<number> {
  const url = `${platform.services.urls.prediction}/millrace.v1.PredictionService/Predict`;
  const body = JSON.stringify({ image: image.toString("base64") });
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body,
  });
  await response.arrayBuffer();
  return response.status;
}

function traceOf(traceId: string, jaeger?: Jaeger): Promise<ReceivedSpan[]> | ReceivedSpan[] {
  return jaeger?.trace(traceId) ?? receiver.spans.filter((span) => span.traceId === traceId);
}

/** What each service is to be seen by, beside what all of them are. */
const expectedMetrics: Readonly<Record<ServiceName, readonly MetricName[]>> = {
  pipeline: ["rpc.server.call.duration", "messaging.client.sent.messages", "messaging.client.operation.duration"],
  ingestion: ["millrace.dataset.images", ...stageMetrics()],
  training: [
    "millrace.training.throughput",
    "millrace.training.epoch",
    "millrace.training.loss",
    "millrace.training.accuracy",
    "millrace.training.validation_accuracy",
    ...stageMetrics(),
  ],
  evaluation: [
    "millrace.evaluation.images",
    "millrace.evaluation.accuracy",
    "millrace.evaluation.decisions",
    ...stageMetrics(),
  ],
  prediction: [
    "rpc.server.call.duration",
    "messaging.client.sent.messages",
    "messaging.client.operation.duration",
    ...servingMetrics(),
  ],
};

/** All but those that need a shadow, somebody who knows better, or a thousand answers. */
function servingMetrics(): MetricName[] {
  const others = ["millrace.serving.shadow.images", "millrace.serving.feedback", "millrace.serving.drift"];
  const all = Object.keys(metricTable) as MetricName[];
  return all.filter((name) => name.startsWith("millrace.serving.") && !others.includes(name));
}

function stageMetrics(): MetricName[] {
  const all = Object.keys(metricTable) as MetricName[];
  return all.filter((name) => name.startsWith("messaging.") || name.startsWith("millrace.consumer."));
}

/** What is the same for every process. */
function processMetrics(): MetricName[] {
  const all = Object.keys(metricTable) as MetricName[];
  return all.filter((name) => /^(process|nodejs|millrace\.service)\./.test(name));
}

for (const service of names) {
  test(`${service} sends traces, metrics and log records`, async () => {
    assert.ok(receiver.spans.some((span) => span.service === service));
    const ready = receiver.logs.find((log) => log.service === service && log.eventName === "service.ready");
    assert.equal(ready?.severityText, "info");
    assert.match(String(ready?.body), /answers at/);
    const expected = [...expectedMetrics[service], ...processMetrics()];
    await eventually("its metrics", () => missingFrom(service, expected).length === 0).catch(() => {
      assert.deepEqual(missingFrom(service, expected), []);
    });
  });
}

function missingFrom(service: ServiceName, expected: readonly MetricName[]): MetricName[] {
  const sent = new Set(receiver.points().flatMap((point) => (point.service === service ? [point.name] : [])));
  return expected.filter((name) => !sent.has(name));
}

for (const service of names) {
  test(`${service} answers GET /metrics on its one port`, async () => {
    const response = await fetch(`${platform.services.urls[service]}/metrics`);
    const text = await response.text();
    assert.equal(response.status, 200);
    for (const name of [...expectedMetrics[service], ...processMetrics()]) {
      const series = `^${prometheusName(name)}(_count)?\\{.*service_name="${service}".*\\} \\S+$`;
      assert.match(text, RegExp(series, "m"), name);
    }
  });
}

test("the edges between services are those of the architecture, each through the headers of its event", () => {
  const byId = new Map(runSpans.map((span) => [span.spanId, span]));
  const edges = runSpans.flatMap((span) => {
    const parent = byId.get(span.parentSpanId ?? "");
    if (parent === undefined || parent.service === span.service) return [];
    return [`${parent.service}: ${parent.name} -> ${span.service}: ${span.name}`];
  });
  const stages = [
    ["pipeline", "run.requested", "ingestion"],
    ["ingestion", "dataset.prepared", "training"],
    ["training", "model.trained", "evaluation"],
  ].flatMap(([from, event, to]) =>
    ["receive", "process"].map(
      (how) => `${from}: send millrace.v1.{run}.${event} -> ${to}: ${how} millrace.v1.{run}.${event}`,
    ),
  );
  const promotion = "evaluation: send millrace.registry.v1.{model} -> prediction: deploy model";
  assert.deepEqual([...new Set(edges)].sort(), [...stages, promotion].sort());
});

test("the trace has one root, the request, and every other span has its parent", () => {
  const roots = runSpans.filter(({ parentSpanId }) => parentSpanId === undefined);
  assert.deepEqual(
    roots.map(({ service, name }) => [service, name]),
    [["pipeline", "millrace.v1.PipelineService/RequestRun"]],
  );
  assert.deepEqual(orphansOf(runSpans), []);
});

test("every span of the run is in its trace, and ended", async () => {
  const { runId, traceId } = finished.run;
  const ofRun = receiver.spans.filter(({ attributes }) => attributes["millrace.run.id"] === runId);
  assert.ok(ofRun.length > 0);
  assert.deepEqual([...new Set(ofRun.map((span) => span.traceId))], [traceId]);
  for (const { name, endTimeUnixNano } of runSpans) assert.ok(BigInt(endTimeUnixNano) > 0n, name);
  const open = () =>
    receiver
      .points()
      .filter(({ name, value }) => name === "otel.sdk.span.live" && value !== 0)
      .map(({ service, value }) => `${service}: ${value}`);
  const counted = new Set(
    receiver.points().flatMap((point) => (point.name === "otel.sdk.span.live" ? [point.service] : [])),
  );
  assert.deepEqual([...counted].sort(), [...names].sort());
  await eventually("no span is open", () => open().length === 0).catch(() => assert.deepEqual(open(), []));
});

test("log records of a run carry its trace", () => {
  const { runId, traceId } = finished.run;
  const records = receiver.logs.filter(({ attributes }) => attributes.run_id === runId);
  const services = new Set(records.map(({ service }) => service));
  for (const stage of ["ingestion", "training", "evaluation"]) assert.ok(services.has(stage), stage);
  assert.deepEqual([...new Set(records.map((record) => record.traceId))], [traceId]);
  assert.deepEqual(
    receiver.logs.filter(({ eventName }) => !/^[a-z]+\.[a-z_]+$/.test(eventName ?? "")),
    [],
    "every record has an event's name",
  );
});

test("of predictions none is kept but those of a caller's trace and those that fail", async () => {
  const calls = () => receiver.spans.filter(({ name }) => name === "millrace.v1.PredictionService/Predict");
  // It was sent last, so whatever else was kept has arrived before it.
  const failed = await eventually("the failed call", () =>
    calls().find(({ attributes }) => attributes["rpc.response.status_code"] === "INVALID_ARGUMENT"),
  );
  assert.deepEqual(
    calls().map(({ traceId }) => traceId),
    [callersTrace, failed.traceId],
  );
  const classified = receiver.spans.filter(({ name }) => name === "classify");
  assert.deepEqual(
    classified.map(({ traceId, attributes }) => [traceId, attributes["error.type"]]),
    [
      [callersTrace, undefined],
      [failed.traceId, "IMAGE_UNREADABLE"],
    ],
  );
});

test("a prediction is linked to the trace of the run", () => {
  const [answer] = receiver.spans.filter(({ name }) => name === "classify");
  assert.notEqual(answer?.traceId, finished.run.traceId);
  assert.deepEqual(answer?.links, [
    { traceId: finished.run.traceId, attributes: { "millrace.run.id": finished.run.runId } },
  ]);
});

/** Kind and name that the conventions ask for, by the attribute that says what a span is about. */
const conventions = [
  { operation: "send", kind: SpanKind.PRODUCER },
  { operation: "receive", kind: SpanKind.CLIENT },
  { operation: "process", kind: SpanKind.CONSUMER },
] as const;

test("names and kinds of spans follow the conventions for messaging and RPC", () => {
  // OTLP counts kinds from 1, the API from 0.
  for (const { operation, kind } of conventions) {
    const spans = runSpans.filter(({ attributes }) => attributes["messaging.operation.type"] === operation);
    assert.ok(spans.length > 0, operation);
    for (const { name, kind: sent, attributes } of spans) {
      assert.deepEqual([name, sent], [`${operation} ${attributes["messaging.destination.template"]}`, kind + 1]);
      assert.equal(attributes["messaging.system"], "nats");
    }
  }
  const calls = receiver.spans.filter(({ attributes }) => "rpc.method" in attributes);
  assert.ok(calls.length > 0);
  for (const { name, kind, attributes } of calls) {
    assert.deepEqual([name, kind], [attributes["rpc.method"], SpanKind.SERVER + 1]);
    assert.match(String(attributes["rpc.response.status_code"]), /^[A-Z_]+$/, name);
  }
});

/** Every set of attributes of spans, metrics and resources. The SDK's account of itself is not ours. */
function allAttributes() {
  const points = receiver.points().filter(({ name }) => !name.startsWith("otel."));
  return [
    ...receiver.spans.flatMap(({ name, attributes, events, links }) =>
      [attributes, ...[...events, ...links].map((part) => part.attributes)].map((set) => ({ name, attributes: set })),
    ),
    ...points.map(({ name, attributes }) => ({ name, attributes })),
    ...[...receiver.spans, ...points, ...receiver.logs].map(({ resource }) => ({
      name: "resource",
      attributes: resource,
    })),
  ];
}

test("every attribute is in the table, and no value is longer than 1 KB", () => {
  for (const { name, attributes } of allAttributes()) {
    for (const [key, value] of Object.entries(attributes)) {
      assert.ok(key in attributeTable, `${key} of ${name} is in no table`);
      assert.ok(JSON.stringify(value).length <= 1_024 + 2, `${key} of ${name}: ${String(value).slice(0, 80)}`);
    }
  }
});

test("every metric is in the table, with the attributes that stand there", () => {
  const points = receiver.points().filter(({ name }) => !name.startsWith("otel."));
  for (const { name, attributes } of points) {
    assert.ok(name in metricTable, `${name} is in no table`);
    const listed: readonly string[] = metricTable[name as MetricName].attributes;
    for (const key of Object.keys(attributes)) assert.ok(listed.includes(key), `${key} of ${name} is not in its row`);
  }
});

test("there are no image bytes and no secrets in what was sent", () => {
  const text = receiver.text();
  assert.ok(!text.includes(secret));
  // How a PNG begins, in base64 and as it is.
  assert.ok(!text.includes("iVBORw0KGgo") && !text.includes("PNG\\r\\n"));
});

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createMillraceClient } from "../../../client/client.ts";
import { attributeTable } from "../../../lib/telemetry/attributes.ts";
import { metricTable } from "../../../lib/telemetry/metric-table.ts";
import { observeMetrics, recordMetric } from "../../../lib/telemetry/metrics.ts";
import { startTelemetry } from "../../../lib/telemetry/sdk.ts";
import {
  observeServing,
  recordBatch,
  recordDecoding,
  recordInference,
  recordPrediction,
} from "../../../lib/telemetry/serving-metrics.ts";
import { eventually } from "../../helpers/bus.ts";
import { predictRequest, rejection, startServer } from "../rpc/server-fixture.ts";

// One for the process: OpenTelemetry's registry is global.
const telemetry = await startTelemetry({ service: "testing", version: "0.0.0", instanceId: "one" });
after(() => telemetry.shutdown());

/** The lines of one metric, by what is between name and value. */
async function series(name: string): Promise<Record<string, number>> {
  const lines = (await telemetry.metricsText()).split("\n").filter((line) => line.startsWith(`${name}{`));
  return Object.fromEntries(
    lines.map((line) => {
      const [, labels = "", value] = /\{(.*)\} (\S+)$/.exec(line) ?? [];
      return [labels.replace(',service_name="testing"', "").replace('service_name="testing"', ""), Number(value)];
    }),
  );
}

test("a counter adds up, a gauge holds the last value, a histogram counts by bucket", async () => {
  for (const promoted of [true, true, false]) {
    const attributes = { "millrace.model.name": "m", "millrace.evaluation.promoted": promoted };
    recordMetric("millrace.evaluation.decisions", 1, attributes);
  }
  for (const loss of [2.5, 1.25]) recordMetric("millrace.training.loss", loss, { "millrace.network.name": "small" });
  for (const waitedMs of [2, 70_000]) recordBatch({ size: 3, reason: "full", waitedMs });
  assert.deepEqual(await series("millrace_evaluation_decisions_total"), {
    'millrace_model_name="m",millrace_evaluation_promoted="true"': 2,
    'millrace_model_name="m",millrace_evaluation_promoted="false"': 1,
  });
  assert.deepEqual(await series("millrace_training_loss"), { 'millrace_network_name="small"': 1.25 });
  const buckets = await series("millrace_serving_queue_duration_bucket");
  const upTo = (bound: string) =>
    Object.entries(buckets).find(([labels]) => labels.includes(`le="${bound}"`))?.[1] ?? Number.NaN;
  assert.deepEqual([upTo("0.001"), upTo("0.0025"), upTo("60"), upTo("+Inf")], [0, 1, 1, 2]);
});

test("an observed metric is asked for at each collection, until that is ended", async () => {
  let queueLength = 1;
  const stop = observeServing(() => ({ queueLength, queueLimit: 8 }));
  assert.deepEqual(await series("millrace_serving_queue_length"), { "": 1 });
  queueLength = 5;
  assert.deepEqual(await series("millrace_serving_queue_length"), { "": 5 });
  stop();
  queueLength = 7;
  assert.deepEqual(await series("millrace_serving_queue_length"), { "": 5 });
});

test("the version that answers has a 1, those before a 0", async () => {
  let model: { name: string; version: number; digest: string } | undefined = { name: "m", version: 3, digest: "d" };
  const stop = observeServing(() => ({ queueLength: 0, queueLimit: 8, model }));
  const third = 'millrace_model_name="m",millrace_model_version="3",millrace_model_digest="d"';
  const fourth = 'millrace_model_name="m",millrace_model_version="4",millrace_model_digest="e"';
  assert.deepEqual(await series("millrace_serving_model_info"), { [third]: 1 });
  model = { name: "m", version: 4, digest: "e" };
  assert.deepEqual(await series("millrace_serving_model_info"), { [third]: 0, [fourth]: 1 });
  model = undefined;
  assert.deepEqual(await series("millrace_serving_model_info"), { [third]: 0, [fourth]: 0 });
  stop();
});

test("a value that cannot be asked for leaves the other metrics as they are", async () => {
  const stop = observeMetrics(["millrace.consumer.pending"], async () => {
    throw new Error("the broker is away");
  });
  assert.ok(Object.keys(await series("process_uptime")).length === 1);
  stop();
});

test("of a model with very many classes only the first hundred are counted by name", async () => {
  const version = { name: "many", version: 1 };
  for (let classIndex = 0; classIndex < 1_000; classIndex++) {
    recordPrediction(version, { className: `class-${classIndex}`, classIndex });
  }
  const counted = await series("millrace_serving_predictions_total");
  assert.equal(Object.keys(counted).length, 101);
  assert.equal(Object.entries(counted).find(([labels]) => labels.includes("_OTHER"))?.[1], 900);
});

test("what is beyond the first 2,000 series of a metric is counted as one", async () => {
  for (let version = 0; version < 2_010; version++) {
    const attributes = {
      "millrace.model.name": "m",
      "millrace.model.version": version,
      "millrace.feedback.correct": true,
    };
    recordMetric("millrace.serving.feedback", 1, attributes);
  }
  const counted = await series("millrace_serving_feedback_total");
  assert.equal(Object.keys(counted).length, 2_001);
  assert.equal(counted['otel_metric_overflow="true"'], 10);
});

test("attributes that change after a record, and another order of them, do not change its series", async () => {
  const attributes = { "millrace.model.name": "first", "millrace.evaluation.promoted": true };
  recordMetric("millrace.evaluation.decisions", 1, attributes);
  attributes["millrace.model.name"] = "second";
  recordMetric("millrace.evaluation.decisions", 1, {
    "millrace.evaluation.promoted": true,
    "millrace.model.name": "first",
  });
  const counted = await series("millrace_evaluation_decisions_total");
  assert.equal(counted['millrace_model_name="first",millrace_evaluation_promoted="true"'], 2);
  assert.ok(!Object.keys(counted).some((labels) => labels.includes("second")));
});

test("times of serving are told in seconds", async () => {
  recordDecoding(12);
  recordInference({ name: "m", version: 3 }, 250);
  assert.deepEqual(await series("millrace_serving_decode_duration_sum"), { "": 0.012 });
  assert.deepEqual(await series("millrace_serving_inference_duration_sum"), {
    'millrace_model_name="m",millrace_model_version="3"': 0.25,
  });
});

test("the process tells of its memory, its processor time and its event loop", async () => {
  const [memory] = Object.values(await series("process_memory_usage"));
  assert.ok((memory ?? 0) > 10 * 1024 * 1024, `${memory} bytes`);
  const cpu = await series("process_cpu_time_total");
  assert.ok((cpu['cpu_mode="user"'] ?? 0) > 0 && 'cpu_mode="system"' in cpu);
  const time = await series("nodejs_eventloop_time_total");
  assert.ok((time['nodejs_eventloop_state="active"'] ?? 0) > 0);
  const delay = async (of: string) => Object.values(await series(`nodejs_eventloop_delay_${of}`))[0] ?? Number.NaN;
  await eventually("a delay is measured", async () => (await delay("max")) > 0);
  const [mean, p99, max] = [await delay("mean"), await delay("p99"), await delay("max")];
  assert.ok(mean > 0 && mean <= max && p99 <= max, `mean ${mean} s, p99 ${p99} s, longest ${max} s`);
});

test("calls are counted and timed by method and status, and failures of the server by their kind", async (t) => {
  const { url, closeLater } = await startServer(t, { metricsText: telemetry.metricsText });
  const { predictions, close } = createMillraceClient({ baseUrl: url, retries: 0 });
  closeLater(close);
  await predictions.predict(predictRequest("cat"));
  await rejection(predictions.predict({}));
  await rejection(predictions.predict(predictRequest("missing")));
  const method = "millrace.v1.PredictionService/Predict";
  const expected = {
    [`rpc_system_name="grpc",rpc_method="${method}",rpc_response_status_code="OK"`]: 1,
    [`rpc_system_name="grpc",rpc_method="${method}",rpc_response_status_code="INVALID_ARGUMENT"`]: 1,
    [`rpc_system_name="grpc",rpc_method="${method}",rpc_response_status_code="UNAVAILABLE",error_type="MODEL_NOT_READY"`]: 1,
  };
  assert.deepEqual(await series("rpc_server_call_duration_count"), expected);

  const response = await fetch(`${url}/metrics?from=a-test`);
  assert.equal(response.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  assert.match(await response.text(), /^# TYPE rpc_server_call_duration histogram$/m);
});

test("a server that was given no metrics has nothing at their path", async (t) => {
  const { url } = await startServer(t);
  const response = await fetch(`${url}/metrics`);
  await response.text();
  assert.equal(response.status, 404);
});

test("every attribute in the table of metrics is in that of attributes, and histograms alone have buckets", () => {
  for (const [name, metric] of Object.entries(metricTable)) {
    for (const attribute of metric.attributes) assert.ok(attribute in attributeTable, `${name}: ${attribute}`);
    assert.equal("buckets" in metric, metric.kind === "histogram", name);
  }
});

/** Never called: it is here to be compiled. */
export function misuse(): void {
  // @ts-expect-error: there is no such metric
  recordMetric("millrace.training.los", 1, {});
  // @ts-expect-error: an attribute is missing
  recordMetric("millrace.training.loss", 1, {});
  // @ts-expect-error: the metric has no such attribute
  recordMetric("millrace.training.loss", 1, { "millrace.network.name": "small", "millrace.run.id": "r" });
  // @ts-expect-error: an observed metric is not recorded
  recordMetric("process.uptime", 1, {});
}

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { startStage } from "../../lib/bus/stage.ts";
import { AppError } from "../../lib/errors.ts";
import { startTelemetry } from "../../lib/telemetry/sdk.ts";
import { eventually, isSettled, openTestBus, prepared, requestRun, stageConsumer, testStage } from "../helpers/bus.ts";
import { startNats } from "../helpers/nats-server.ts";

// One for the process: OpenTelemetry's registry is global.
const telemetry = await startTelemetry({ service: "testing", version: "0.0.0" });
after(() => telemetry.shutdown());

/** The value of the one series of a metric that has these labels, or undefined. */
async function metric(name: string, labels: Readonly<Record<string, string>> = {}): Promise<number | undefined> {
  const wanted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
  const lines = (await telemetry.metricsText()).split("\n").filter((line) => line.startsWith(`${name}{`));
  const found = lines.filter((line) => wanted.every((label) => line.includes(label)));
  assert.ok(found.length <= 1, found.join("\n"));
  return found[0] === undefined ? undefined : Number(found[0].split(" ").at(-1));
}

const settled = (what: string) =>
  metric("millrace_consumer_settled_messages_total", { millrace_consumer_settlement: what });

test("what waits for a stage, and for how long, is what the broker says", async (t) => {
  const nats = await startNats(t);
  await using bus = await openTestBus(nats);
  let release = () => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  await requestRun(bus, "r1");
  await requestRun(bus, "r2");
  const publishedMs = Date.now();
  const stage = startStage(
    bus,
    testStage(async () => {
      await released;
      return prepared();
    }),
  );
  await eventually("the first run is in hand", async () => {
    const consumer = await stageConsumer(bus).catch(() => undefined);
    return consumer?.num_ack_pending === 1;
  });
  const lag = await eventually("the lag is known", async () => (await metric("millrace_consumer_lag")) || undefined);
  const consumer = { messaging_consumer_group_name: "ingestion" };
  assert.equal(await metric("millrace_consumer_pending", consumer), 1);
  assert.equal(await metric("millrace_consumer_ack_pending", consumer), 1);
  // The broker's clock is this machine's; its times are finer than milliseconds.
  assert.ok(lag <= (Date.now() - publishedMs) / 1_000 + 1, `${lag} s`);

  release();
  await eventually("both are done", () => isSettled(bus));
  await eventually("the broker is asked again", async () => (await metric("millrace_consumer_lag")) === 0);
  assert.equal(await metric("millrace_consumer_pending", consumer), 0);
  await stage.stop();
  assert.equal(await settled("acknowledge"), 2);
  assert.equal(await settled("dead letter"), 0, "counted from the start, so that the first one is an increase");
});

test("tries, their errors, repeated deliveries and the dead letter are counted", async (t) => {
  const nats = await startNats(t);
  await using bus = await openTestBus(nats);
  const before = {
    consumed: await metric("messaging_client_consumed_messages_total"),
    acknowledged: await settled("acknowledge"),
  };
  await requestRun(bus, "r1");
  const stage = startStage(
    bus,
    testStage(async () => {
      throw new AppError("ARTIFACT_TIMEOUT", "the store did not answer");
    }),
  );
  await eventually("it is given up", async () => (await settled("dead letter")) === 1);
  await stage.stop();
  assert.equal(await settled("retry"), 2);
  assert.equal(await settled("acknowledge"), before.acknowledged);
  assert.equal(await metric("messaging_client_consumed_messages_total"), (before.consumed ?? 0) + 3);
  assert.equal(await metric("millrace_consumer_redelivered_messages_total"), 2);
  assert.equal(await metric("messaging_process_duration_count", { error_type: "ARTIFACT_TIMEOUT" }), 3);
});

test("publications are counted by the kind of event", async (t) => {
  const nats = await startNats(t);
  await using bus = await openTestBus(nats);
  const labels = { messaging_destination_template: "millrace.v1.{run}.run.requested" };
  const before = (await metric("messaging_client_sent_messages_total", labels)) ?? 0;
  await requestRun(bus, "r1");
  await requestRun(bus, "r2");
  assert.equal(await metric("messaging_client_sent_messages_total", labels), before + 2);
  assert.equal(await metric("messaging_client_operation_duration_count", labels), before + 2);
});

test("a broker that is away costs a collection of metrics nothing", async (t) => {
  const nats = await startNats(t);
  await using bus = await openTestBus(nats);
  const stage = startStage(
    bus,
    testStage(async () => prepared()),
  );
  await eventually("the consumer is there", () => stageConsumer(bus).then(Boolean, () => false));
  await nats.kill();
  await eventually("the loss is noticed", () => !bus.connection.connected());
  assert.match(await telemetry.metricsText(), /^process_uptime/m);
  await stage.stop();
});

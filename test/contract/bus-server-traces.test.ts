/** nats-server's own part in a trace. */
import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import { context, propagation, trace } from "@opentelemetry/api";
import { node, tracing } from "@opentelemetry/sdk-node";
import pino from "pino";
import { eventStream } from "../../lib/bus/subjects.ts";
import { withSpan } from "../../lib/telemetry/spans.ts";
import { eventually, openTestBus, requestRun, storedMessages } from "../helpers/bus.ts";
import { startNats } from "../helpers/nats-server.ts";

const exporter = new tracing.InMemorySpanExporter();
const provider = new node.NodeTracerProvider({ spanProcessors: [new tracing.SimpleSpanProcessor(exporter)] });
provider.register();
beforeEach(() => exporter.reset());
after(async () => {
  await provider.shutdown();
  for (const api of [trace, context, propagation]) api.disable();
});

test("where the server is 2.11 or later, storing an event is a span of its own below the publication", async (t) => {
  const nats = await startNats(t);
  await using bus = await openTestBus(nats, { serverTraces: true });
  const { version = "" } = bus.nc.info ?? {};
  if (bus.traceDestination === undefined) {
    assert.match(version, /^2\.([0-9]|10)\./, "only older servers say nothing");
    t.skip(`nats-server ${version} has no message traces; NATS_SERVER_BIN may name one that is 2.11 or later`);
    return;
  }
  await withSpan("RequestRun", {}, () => requestRun(bus, "r1"));
  const find = (name: string) => exporter.getFinishedSpans().find((span) => span.name === name);
  const server = await eventually("the server has told", () => find("nats-server"));
  const sent = find("send millrace.v1.{run}.run.requested");
  assert.equal(server.parentSpanContext?.spanId, sent?.spanContext().spanId);
  assert.equal(server.attributes["millrace.nats.stream"], eventStream);
  assert.equal(server.attributes["millrace.nats.server_version"], version);
  assert.deepEqual(
    server.events.map(({ name }) => name),
    ["received", "stored"],
  );
});

test("a server that is too old is told of once, and events are published all the same", async (t) => {
  const nats = await startNats(t);
  const lines: string[] = [];
  const logger = pino({}, { write: (line: string) => void lines.push(line) });
  await using bus = await openTestBus(nats, { serverTraces: true, logger });
  for (const run of ["r1", "r2"]) await requestRun(bus, run);
  const warnings = lines.filter((line) => line.includes("broker.no_traces"));
  assert.equal(warnings.length, bus.traceDestination === undefined ? 1 : 0);
  const stored = await storedMessages(bus, "millrace.v1.*.run.requested");
  assert.deepEqual(
    stored.map(({ header }) => header.has("Nats-Trace-Dest")),
    [false, false],
    "what is stored asks nobody for traces again",
  );
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { node, tracing } from "@opentelemetry/sdk-node";
import { EpochMetricsSchema } from "../../../gen/millrace/v1/training_pb.ts";
import { withSpan } from "../../../lib/telemetry/spans.ts";
import { createEpochSpans } from "../../../services/training/epoch-metrics.ts";

test("each epoch that has begun is a span of the training, and one that never began is none", async (t) => {
  const exporter = new tracing.InMemorySpanExporter();
  const provider = new node.NodeTracerProvider({ spanProcessors: [new tracing.SimpleSpanProcessor(exporter)] });
  provider.register();
  t.after(() => provider.shutdown());
  const metrics = (epoch: number) => create(EpochMetricsSchema, { epoch, epochs: 9 });

  const spans = await withSpan("train", {}, () => createEpochSpans());
  spans.begin(10);
  spans.begin(20);
  spans.end(metrics(1));
  spans.end(metrics(2));
  spans.dispose();
  const stopped = createEpochSpans();
  stopped.begin(0);
  stopped.dispose();

  const all = exporter.getFinishedSpans();
  const [train, built] = all;
  const epochs = all.filter(({ name }) => name === "epoch");
  assert.equal(built?.name, "build network");
  assert.deepEqual(built.endTime, epochs[0]?.startTime);
  assert.deepEqual(
    epochs.map(({ name, attributes }) => [name, attributes["millrace.training.epoch"]]),
    [
      ["epoch", 1],
      ["epoch", 2],
      ["epoch", undefined],
    ],
  );
  for (const epoch of epochs.slice(0, 2)) assert.equal(epoch.parentSpanContext?.spanId, train?.spanContext().spanId);
});

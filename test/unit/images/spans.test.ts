import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, test } from "node:test";
import { node, tracing } from "@opentelemetry/sdk-node";
import { loadSplit } from "../../../lib/images/load-split.ts";
import { attributeTable } from "../../../lib/telemetry/attributes.ts";
import { withSpan } from "../../../lib/telemetry/spans.ts";
import { tempFolder } from "../../helpers/temp-folder.ts";
import { classFolders, packZip, prepare } from "./inputs.ts";

const exporter = new tracing.InMemorySpanExporter();
const provider = new node.NodeTracerProvider({ spanProcessors: [new tracing.SimpleSpanProcessor(exporter)] });
provider.register();
beforeEach(() => exporter.reset());

/** Finished spans as "parent > name", in the order in which they began. */
function edges(): string[] {
  const spans = exporter.getFinishedSpans();
  const nameOf = new Map(spans.map((span) => [span.spanContext().spanId, span.name]));
  return spans.map(({ name, parentSpanContext }) => `${nameOf.get(parentSpanContext?.spanId ?? "") ?? ""} > ${name}`);
}

function attributesOf(name: string) {
  return exporter
    .getFinishedSpans()
    .filter((span) => span.name === name)
    .map(({ attributes }) => attributes);
}

test("the trace of a preparation shows the archive that was read and each shard, not each image", async (t) => {
  const source = join(await tempFolder(t), "images.zip");
  await writeFile(source, await packZip(await classFolders(["cat", "dog"])));
  await withSpan("prepare dataset", {}, () => prepare(t, { source }));
  assert.deepEqual(edges().sort(), [
    " > prepare dataset",
    "fill shard > write shard",
    "fill shard > write shard",
    "open source > read archive",
    "prepare dataset > fill shard",
    "prepare dataset > fill shard",
    "prepare dataset > open source",
  ]);
  const shard = { "millrace.shard.index": 0 };
  assert.deepEqual(attributesOf("fill shard"), [
    { ...shard, "millrace.dataset.split": "train", "millrace.images.count": 8 },
    { ...shard, "millrace.dataset.split": "test", "millrace.images.count": 4 },
  ]);
  assert.equal(attributesOf("read archive")[0]?.["millrace.files.count"], 12);
  for (const { attributes } of exporter.getFinishedSpans())
    for (const name of Object.keys(attributes)) assert.ok(name in attributeTable, name);
});

test("a shard's span begins with its first image, before the shard is written", async (t) => {
  const source = join(await tempFolder(t), "images.zip");
  await writeFile(source, await packZip(await classFolders(["cat", "dog"])));
  await prepare(t, { source });
  const spans = exporter.getFinishedSpans();
  const ms = ([seconds, nanos]: [number, number]) => seconds * 1000 + nanos / 1e6;
  const began = (name: string) => ms(spans.find((span) => span.name === name)?.startTime ?? [0, 0]);
  assert.ok(began("fill shard") > 0 && began("fill shard") <= began("write shard"));
});

test("loading a split is a span with the split and its images", async (t) => {
  const source = join(await tempFolder(t), "images.zip");
  await writeFile(source, await packZip(await classFolders(["cat", "dog"])));
  const { manifest, artifacts } = await prepare(t, { source });
  await loadSplit(manifest, "test", { artifacts, signal: new AbortController().signal });
  assert.deepEqual(attributesOf("load split"), [{ "millrace.dataset.split": "test", "millrace.images.count": 4 }]);
});

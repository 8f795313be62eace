import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { SimpleSpanProcessor, type SpanExporter, TracerProvider } from "@opentelemetry/sdk-trace";
import { createTraceFileExporter } from "../../../lib/telemetry/trace-file.ts";
import { tempFolder } from "../../helpers/temp-folder.ts";
import { readTraceFiles, spansOf } from "./otlp-json.ts";

/** Writes spans one by one, each a batch of its own. */
async function writeSpans(t: TestContext, exporter: SpanExporter, names: readonly string[]): Promise<void> {
  const provider = new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter })] });
  t.after(() => provider.shutdown());
  const tracer = provider.getTracer("test");
  for (const name of names) tracer.startSpan(name).end();
  await provider.forceFlush();
}

test("batches that come at once are lines in order, and the newest files are kept", async (t) => {
  const folder = await tempFolder(t);
  const path = join(folder, "traces", "testing.jsonl");
  const exporter = createTraceFileExporter({ path, maxBytes: 1_500, maxFiles: 3 });
  const names = Array.from({ length: 20 }, (_, index) => `span ${index}`);
  await writeSpans(t, exporter, names);
  await exporter.shutdown();

  const files = (await readdir(join(folder, "traces"))).sort();
  assert.deepEqual(files, ["testing.jsonl", "testing.jsonl.1", "testing.jsonl.2"]);
  const kept: string[] = [];
  for (const file of files.reverse()) {
    const lines = (await readFile(join(folder, "traces", file), "utf8")).trimEnd().split("\n");
    kept.push(...spansOf(lines.map((line) => JSON.parse(line))).map(({ name }) => name));
  }
  assert.ok(kept.length >= 3 && kept.length < 20);
  assert.deepEqual(kept, names.slice(-kept.length));
});

test("a second process of the same name goes on where the first ended", async (t) => {
  const path = join(await tempFolder(t), "testing.jsonl");
  for (const name of ["first", "second"]) {
    const exporter = createTraceFileExporter({ path, maxBytes: 1_000_000, maxFiles: 2 });
    await writeSpans(t, exporter, [name]);
    await exporter.shutdown();
  }
  const names = spansOf(await readTraceFiles(join(path, ".."))).map(({ name }) => name);
  assert.deepEqual(names, ["first", "second"]);
});

test("a folder that cannot be made is reported for each batch and stops nothing", async (t) => {
  const file = join(await tempFolder(t), "a-file");
  await writeFile(file, "");
  const exporter = createTraceFileExporter({ path: join(file, "testing.jsonl"), maxBytes: 1_000, maxFiles: 2 });
  const codes: number[] = [];
  for (let batch = 0; batch < 2; batch++) {
    await new Promise<void>((resolve) => {
      exporter.export([], ({ code }) => {
        codes.push(code);
        resolve();
      });
    });
  }
  await exporter.shutdown();
  assert.deepEqual(codes, [1, 1]);
});

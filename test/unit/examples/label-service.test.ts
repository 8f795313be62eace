/** examples/label-service as a process of its own, in front of a real prediction service. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import sharp from "sharp";
import { startTelemetry } from "../../../lib/telemetry/sdk.ts";
import { startPredictionService } from "../../helpers/prediction-server.ts";
import { readTraceFiles, spansOf } from "../telemetry/otlp-json.ts";

const root = join(import.meta.dirname, "../../..");
const traceDir = mkdtempSync(join(tmpdir(), "millrace-test-"));
const telemetry = await startTelemetry({ service: "prediction", version: "0.0.0", instanceId: "one", traceDir });
after(async () => {
  await telemetry.shutdown();
  rmSync(traceDir, { recursive: true });
});

/** Starts the example and returns its URL, which is its first line. */
async function startLabelService(t: TestContext, millraceUrl: string): Promise<string> {
  const env = { ...process.env, MILLRACE_URL: millraceUrl, PORT: "0", OTEL_TRACES_EXPORTER: "none" };
  const child = spawn(process.execPath, ["--import", "tsx", "examples/label-service/main.ts"], {
    cwd: root,
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = once(child, "exit");
  t.after(async () => {
    child.kill("SIGTERM");
    const [status] = await ended;
    assert.equal(status, 0, "it stops in order");
  });
  for await (const line of createInterface(child.stdout)) return line;
  return assert.fail("it ended before it listened");
}

test("a picture gets a label, a text none, and the caller's trace goes through", async (t) => {
  const url = await startLabelService(t, (await startPredictionService(t)).url);
  const traceId = "0af7651916cd43dd8448eb211c80319c";
  const image = await sharp({ create: { width: 20, height: 20, channels: 3, background: "#c08040" } })
    .png()
    .toBuffer();
  const headers = { traceparent: `00-${traceId}-b7ad6b7169203331-01` };
  const labelled = await fetch(url, { method: "POST", body: image, headers });
  const { label, probability, model } = (await labelled.json()) as {
    label: string;
    probability: number;
    model: number;
  };
  assert.equal(labelled.status, 200);
  assert.ok(["cat", "dog", "fox"].includes(label), label);
  assert.ok(probability > 1 / 3 && probability <= 1, String(probability));
  assert.equal(model, 1);

  const refused = await fetch(url, { method: "POST", body: "no picture" });
  assert.deepEqual([refused.status, await refused.json()], [400, { error: "IMAGE_UNREADABLE" }]);
  const tooLarge = await fetch(url, { method: "POST", body: Buffer.alloc(5 * 1024 * 1024) });
  assert.equal(tooLarge.status, 413);

  const giveUpAtMs = performance.now() + 10_000;
  const spans = async () => spansOf(await readTraceFiles(traceDir).catch(() => []));
  while (!(await spans()).some((span) => span.traceId === traceId && span.name.endsWith("/Predict"))) {
    assert.ok(performance.now() < giveUpAtMs, "the prediction is not in the caller's trace");
    await delay(50);
  }
});

test("while Millrace is away the answer is 503, with the time to come back", async (t) => {
  const url = await startLabelService(t, "http://127.0.0.1:1");
  const response = await fetch(url, { method: "POST", body: "anything" });
  assert.deepEqual([response.status, response.headers.get("retry-after")], [503, "1"]);
  assert.deepEqual(await response.json(), { error: "MILLRACE_UNREACHABLE" });
});

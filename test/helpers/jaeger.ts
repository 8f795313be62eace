import { spawn } from "node:child_process";
import { once } from "node:events";
import type { TestContext } from "node:test";
import { eventually } from "./bus.ts";
import { type Json, type ReceivedSpan, spansFrom } from "./otlp-receiver.ts";

/** A Jaeger v2, as far as tests ask of it. */
export interface Jaeger {
  /** Takes spans by OTLP over HTTP. */
  readonly tracesUrl: string;
  /** What its query API says of a trace; empty if it knows none of that id. */
  trace(traceId: string): Promise<ReceivedSpan[]>;
}

/** Jaeger's own configuration, which keeps traces in memory, without what nobody asks here, and on free ports. */
const settings = [
  "service.extensions=[jaeger_storage, jaeger_query]",
  "service.pipelines.traces.receivers=[otlp]",
  "service.telemetry.metrics.level=none",
  "receivers.otlp.protocols.http.endpoint=127.0.0.1:0",
  "receivers.otlp.protocols.grpc.endpoint=127.0.0.1:0",
  "extensions.jaeger_query.http.endpoint=127.0.0.1:0",
  "extensions.jaeger_query.grpc.endpoint=127.0.0.1:0",
];

/**
 * Starts the program that build-jaeger.sh makes. It ends with the test.
 *
 * @param binary Its path.
 */
export async function startJaeger(t: Pick<TestContext, "after">, binary: string): Promise<Jaeger> {
  const child = spawn(
    binary,
    settings.map((setting) => `--set=${setting}`),
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  let log = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    log += text;
  });
  const ended = once(child, "exit");
  t.after(async () => {
    child.kill();
    await ended;
  });
  /** The log says where it listens. */
  const address = (pattern: RegExp) =>
    eventually(`Jaeger's log matches ${pattern}`, () => {
      if (child.exitCode !== null) throw new Error(`Jaeger ended: ${log.slice(-2_000)}`);
      return pattern.exec(log)?.[1];
    });
  const otlp = await address(/otlpreceiver.*Starting HTTP server.*"endpoint": ?"(127\.0\.0\.1:\d+)"/);
  const query = await address(/"http_addr": ?"(127\.0\.0\.1:\d+)"/);
  return {
    tracesUrl: `http://${otlp}/v1/traces`,
    trace: (traceId) => askForTrace(`http://${query}/api/v3/traces/${traceId}`),
  };
}

async function askForTrace(url: string): Promise<ReceivedSpan[]> {
  const response = await fetch(url);
  const text = await response.text();
  if (response.status === 404) return [];
  if (!response.ok) throw new Error(`${url} answered ${response.status}: ${text}`);
  const { result } = JSON.parse(text) as { result: Json };
  return spansFrom(result);
}

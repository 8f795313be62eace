import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { createServer as createHttp2Server } from "node:http2";
import { type AddressInfo, createServer, type Server } from "node:net";
import { text } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";

const program = fileURLToPath(new URL("one-signal-program.ts", import.meta.url));

interface Outcome {
  readonly exitCode: number | null;
  /** From the end of the program's shutdown to the end of its process. */
  readonly lingeredMs: number;
  readonly shutdownMs: number;
  readonly warnings: readonly Record<string, unknown>[];
}

/** Runs the program with a collector's variables. */
async function runWith(env: Record<string, string>): Promise<Outcome> {
  const child = spawn(process.execPath, ["--import", "tsx", program], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [output, [exitCode]] = await Promise.all([text(child.stdout), once(child, "exit")]);
  const endedMs = Date.now();
  const lines: Record<string, unknown>[] = output
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const stopped = lines.find(({ event }) => event === "stopped");
  return {
    exitCode,
    lingeredMs: endedMs - Date.parse(String(stopped?.time)),
    shutdownMs: Number(stopped?.shutdownMs),
    warnings: lines.filter(({ event }) => event === "telemetry.degraded"),
  };
}

/** Listens on a free port; the server is closed, with its connections, when the test ends. */
async function listenOn(t: TestContext, server: Server): Promise<string> {
  const sockets = new Set<{ destroy(): void }>();
  server.on("connection", (socket) => sockets.add(socket));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** What the program sends, by the path it goes to over HTTP. */
const signals = { "/v1/traces": "the only span", "/v1/metrics": "the only metric", "/v1/logs": "the only line" };

for (const protocol of ["http/protobuf", "http/json"]) {
  test(`spans, metrics and log lines reach a collector over ${protocol}`, async (t) => {
    const bodies = new Map<string, string>();
    const collector = createHttpServer(async (request, response) => {
      bodies.set(String(request.url), await text(request));
      response.end();
    });
    const endpoint = await listenOn(t, collector);
    const { exitCode, warnings } = await runWith({
      OTEL_EXPORTER_OTLP_ENDPOINT: endpoint,
      OTEL_EXPORTER_OTLP_PROTOCOL: protocol,
    });
    assert.deepEqual([exitCode, warnings], [0, []]);
    assert.deepEqual([...bodies.keys()].sort(), Object.keys(signals).sort());
    for (const [path, content] of Object.entries(signals)) assert.match(bodies.get(path) ?? "", RegExp(content), path);
  });
}

test("the same over grpc", async (t) => {
  const bodies: string[] = [];
  const collector = createHttp2Server();
  collector.on("stream", async (stream, headers) => {
    stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    bodies.push(`${headers[":path"]} ${await text(stream)}`);
    stream.end(Buffer.alloc(5));
  });
  const endpoint = await listenOn(t, collector);
  const { exitCode, warnings } = await runWith({
    OTEL_EXPORTER_OTLP_ENDPOINT: endpoint,
    OTEL_EXPORTER_OTLP_PROTOCOL: "grpc",
  });
  assert.deepEqual([exitCode, warnings], [0, []]);
  const all = bodies.join("\n");
  assert.match(all, /TraceService\/Export .*the only span/s);
  assert.match(all, /MetricsService\/Export .*the only metric/s);
  assert.match(all, /LogsService\/Export .*the only line/s);
});

test("a signal goes where its own variable says, or nowhere", async (t) => {
  const paths: string[] = [];
  const collector = createHttpServer((request, response) => {
    paths.push(String(request.url));
    request.resume().on("end", () => response.end());
  });
  const endpoint = await listenOn(t, collector);
  await runWith({ OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: `${endpoint}/only/metrics` });
  assert.deepEqual([...new Set(paths)], ["/only/metrics"]);
  paths.length = 0;
  const none = { OTEL_TRACES_EXPORTER: "none", OTEL_METRICS_EXPORTER: "none" };
  await runWith({ OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, ...none });
  assert.deepEqual([...new Set(paths)], ["/v1/logs"]);
});

test("a collector that is down delays the end by little", async () => {
  for (const protocol of ["http/protobuf", "grpc"]) {
    const outcome = await runWith({
      OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:1",
      OTEL_EXPORTER_OTLP_PROTOCOL: protocol,
    });
    assert.equal(outcome.exitCode, 0);
    assert.ok(outcome.shutdownMs < 2_000, `${protocol}: shutdown took ${outcome.shutdownMs} ms`);
    assert.ok(outcome.lingeredMs < 4_000, `${protocol}: the process lingered for ${outcome.lingeredMs} ms`);
  }
});

test("a collector that never answers delays the end by little", async (t) => {
  const endpoint = await listenOn(t, createServer());
  const outcome = await runWith({ OTEL_EXPORTER_OTLP_ENDPOINT: endpoint });
  assert.equal(outcome.exitCode, 0);
  assert.ok(outcome.shutdownMs < 2_000, `shutdown took ${outcome.shutdownMs} ms`);
  assert.ok(outcome.lingeredMs < 4_000, `the process lingered for ${outcome.lingeredMs} ms`);
});

test("a collector that refuses spans, metrics and log lines causes one warning in all", async (t) => {
  const collector = createHttpServer((_request, response) => {
    response.writeHead(400);
    response.end();
  });
  const { warnings } = await runWith({ OTEL_EXPORTER_OTLP_ENDPOINT: await listenOn(t, collector) });
  assert.equal(warnings.length, 1);
});

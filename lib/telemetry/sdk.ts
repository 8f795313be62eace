import { hostname } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type DiagLogger, DiagLogLevel, diag } from "@opentelemetry/api";
import { NodeSDK, resources } from "@opentelemetry/sdk-node";
import { BatchSpanProcessor, type SpanExporter, type SpanProcessor } from "@opentelemetry/sdk-trace";
import type { Logger } from "../log.ts";
import type { AttributeName } from "./attributes.ts";
import { createTraceFileExporter } from "./trace-file.ts";

/** Spans wait so long for company before they are written: short enough to watch a run, long enough to batch. */
const batchDelayMs = 500;
/** Spans that may wait; when a collector is slower than that, more are dropped. */
const maxQueuedSpans = 8_192;
/** An attempt to export, its retries included. OTEL_EXPORTER_OTLP_TIMEOUT overrides it. */
const exportTimeoutMs = 3_000;
/** How long the end of a process waits for its last spans to be delivered. */
const flushTimeoutMs = 1_500;
/** Least time between two warnings about telemetry. */
const warningIntervalMs = 60_000;
const traceFileBytes = 16 * 1024 * 1024;
const traceFiles = 4;

export interface TelemetryOptions {
  /** Name of the service, as it appears in the traces. */
  readonly service: string;
  readonly version: string;
  /** Which process of the service this is; the process id by default. Names the trace file too. */
  readonly instanceId?: string;
  /** Folder for `SERVICE-INSTANCE.jsonl`, traces as OTLP JSON lines, 4 files of 16 MB at most. None by default. */
  readonly traceDir?: string | undefined;
  /** Takes the warnings, at most one a minute; without it they are dropped. */
  readonly logger?: Logger;
}

/** Running telemetry. `shutdown` delivers what is left and takes 1.5 s at most, whatever the collector does. */
export interface Telemetry {
  shutdown(): Promise<void>;
}

/**
 * Starts OpenTelemetry for this process. Call it once, before other work; every other module knows only the API.
 *
 * Spans go to the collector of OTEL_EXPORTER_OTLP_ENDPOINT (or its _TRACES_ form) and to files in `traceDir`; with
 * neither, nothing is recorded. Sampler, limits, propagators, headers and protocol follow the standard OTEL_* variables.
 * A collector that is down or slow costs spans, never the work.
 */
export async function startTelemetry(options: TelemetryOptions): Promise<Telemetry> {
  const { service, version, instanceId = String(process.pid), traceDir, logger } = options;
  diag.setLogger(warningsTo(logger), { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true });
  const processors: SpanProcessor[] = [];
  if (traceDir !== undefined) {
    const path = join(traceDir, `${service}-${instanceId}.jsonl`);
    processors.push(batched(createTraceFileExporter({ path, maxBytes: traceFileBytes, maxFiles: traceFiles })));
  }
  if (process.env.OTEL_EXPORTER_OTLP_ENDPOINT || process.env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) {
    processors.push(batched(await createOtlpExporter()));
  }
  const sdk = new NodeSDK({
    serviceName: service,
    resource: resources.resourceFromAttributes(describeProcess(version, instanceId)),
    // The process detector would publish the command line, which may hold secrets.
    resourceDetectors: [resources.envDetector],
    spanProcessors: processors,
    metricReaders: [],
    logRecordProcessors: [],
  });
  sdk.start();
  return {
    async shutdown() {
      const stopped = sdk.shutdown().catch((error: unknown) => diag.warn("telemetry did not stop cleanly", error));
      await Promise.race([stopped, delay(flushTimeoutMs, undefined, { ref: false })]);
    },
  };
}

function describeProcess(version: string, instanceId: string): Partial<Record<AttributeName, string | number>> {
  return {
    "service.namespace": "millrace",
    "service.version": version,
    "service.instance.id": instanceId,
    "host.name": hostname(),
    "host.arch": process.arch,
    "process.pid": process.pid,
    "process.runtime.name": "nodejs",
    "process.runtime.version": process.versions.node,
  };
}

function batched(exporter: SpanExporter): SpanProcessor {
  return new BatchSpanProcessor({
    exporter,
    scheduledDelayMillis: batchDelayMs,
    maxQueueSize: maxQueuedSpans,
    exportTimeoutMillis: exportTimeoutMs,
  });
}

/** The exporter of the protocol that the standard variables name; http/protobuf by default. */
async function createOtlpExporter(): Promise<SpanExporter> {
  const { OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, OTEL_EXPORTER_OTLP_PROTOCOL } = process.env;
  const protocol = OTEL_EXPORTER_OTLP_TRACES_PROTOCOL || OTEL_EXPORTER_OTLP_PROTOCOL || "http/protobuf";
  const { OTLPTraceExporter } = await importExporter(protocol);
  const { OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, OTEL_EXPORTER_OTLP_TIMEOUT } = process.env;
  const timeoutMillis = Number(OTEL_EXPORTER_OTLP_TRACES_TIMEOUT || OTEL_EXPORTER_OTLP_TIMEOUT) || exportTimeoutMs;
  return new OTLPTraceExporter({ timeoutMillis });
}

function importExporter(protocol: string) {
  switch (protocol) {
    case "grpc":
      return import("@opentelemetry/exporter-trace-otlp-grpc");
    case "http/json":
      return import("@opentelemetry/exporter-trace-otlp-http");
    case "http/protobuf":
      return import("@opentelemetry/exporter-trace-otlp-proto");
    default:
      diag.warn(`OTEL_EXPORTER_OTLP_PROTOCOL=${protocol} is not grpc, http/protobuf or http/json; using http/protobuf`);
      return import("@opentelemetry/exporter-trace-otlp-proto");
  }
}

/** OpenTelemetry reports each failed export; people need to hear of it once a minute. */
function warningsTo(logger: Logger | undefined): DiagLogger {
  let lastWarningMs = Number.NEGATIVE_INFINITY;
  const warn = (message: string, ...rest: unknown[]) => {
    const nowMs = performance.now();
    if (nowMs - lastWarningMs < warningIntervalMs) return;
    lastWarningMs = nowMs;
    logger?.warn(
      { event: "telemetry.degraded", reason: [message, ...rest.map(String)].join(" ") },
      "telemetry is incomplete",
    );
  };
  const ignore = () => {};
  return { error: warn, warn, info: ignore, debug: ignore, verbose: ignore };
}

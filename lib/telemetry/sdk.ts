import { hostname } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { type DiagLogger, DiagLogLevel, diag } from "@opentelemetry/api";
import { PrometheusExporter, PrometheusSerializer } from "@opentelemetry/exporter-prometheus";
import { logs, metrics, NodeSDK, resources } from "@opentelemetry/sdk-node";
import type { Logger } from "../log.ts";
import type { AttributeName } from "./attributes.ts";
import { createLogExporter, createMetricExporter, exportTimeoutMs } from "./exporters.ts";
import { createLogRecordStream } from "./log-records.ts";
import { createMetricSeries, type MetricSeries } from "./metric-series.ts";
import { recordMetricsIn } from "./metrics.ts";
import { observeProcess } from "./process-metrics.ts";
import { createSpanIds } from "./provisional-span.ts";
import { createRequestSampling } from "./request-sampling.ts";
import { createSpanProcessors } from "./span-processors.ts";
import { sampleSpans } from "./spans.ts";

/** How long log records wait for company before they are sent. */
const logDelayMs = 500;
/** How often metrics are sent to a collector. OTEL_METRIC_EXPORT_INTERVAL overrides it. */
const metricIntervalMs = 15_000;
/** How long a collection of metrics waits for values that have to be asked for. */
const collectTimeoutMs = 2_000;
/** Longest attribute of a span in characters. OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT overrides it. */
const maxAttributeLength = 1_024;
/** How long the end of a process waits for its last telemetry to be delivered. */
const flushTimeoutMs = 1_500;
/** Least time between two warnings about telemetry. */
const warningIntervalMs = 60_000;

export interface TelemetryOptions {
  /** Name of the service, as it appears in traces, metrics and logs. */
  readonly service: string;
  readonly version: string;
  /** Which process of the service this is; the process id by default. Names the trace file too. */
  readonly instanceId?: string;
  /** Folder for `SERVICE-INSTANCE.jsonl`, traces as OTLP JSON lines, 4 files of 16 MB at most. None by default. */
  readonly traceDir?: string | undefined;
  /** Share of the requests whose trace is kept, 0 to 1; runs and failures always are. Default: 1. */
  readonly traceShare?: number;
  /** Takes the warnings, at most one a minute; without it they are dropped. */
  readonly logger?: Logger;
}

/** Running telemetry. */
export interface Telemetry {
  /** All metrics, in the text format of Prometheus 0.0.4. */
  metricsText(): Promise<string>;
  /** Takes a logger's lines and sends them as log records; undefined where the standard variables name no collector. */
  readonly logStream: { write(line: string): void } | undefined;
  /** Delivers what is left and takes 1.5 s at most, whatever the collector does. */
  shutdown(): Promise<void>;
}

/**
 * Starts OpenTelemetry for this process. Call it once, before other work; every other module knows only the API.
 *
 * Spans, metrics and log records go to the collector of OTEL_EXPORTER_OTLP_ENDPOINT, or of its forms for one signal, and
 * spans to files in `traceDir`. Metrics are always counted, for `metricsText`. Sampler, limits, propagators, headers and
 * protocol follow the standard OTEL_* variables; OTEL_SDK_DISABLED=true turns all of it off.
 * A collector that is down or slow costs telemetry, never the work.
 */
export async function startTelemetry(options: TelemetryOptions): Promise<Telemetry> {
  const { service, version, instanceId = String(process.pid), traceShare = 1, logger } = options;
  diag.setLogger(warningsTo(logger), { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true });
  const series = createMetricSeries();
  const prometheus = new PrometheusExporter({ preventServerStart: true, metricProducers: [series] });
  const logProcessors = await createLogProcessors();
  const spanProcessors = await createSpanProcessors({ ...options, instanceId });
  const idGenerator = createSpanIds();
  const sdk = new NodeSDK({
    serviceName: service,
    resource: resources.resourceFromAttributes(describeProcess(version, instanceId)),
    // The process detector would publish the command line, which may hold secrets.
    resourceDetectors: [resources.envDetector],
    spanProcessors,
    idGenerator,
    spanLimits: attributeLimit(),
    metricReaders: [prometheus, ...(await createMetricReaders(series))],
    logRecordProcessors: logProcessors,
  });
  sdk.start();
  if (!isDisabled()) {
    recordMetricsIn(series);
    const samples = traceShare < 1 && spanProcessors.length > 0;
    if (samples) sampleSpans((tracer) => createRequestSampling(traceShare, tracer, idGenerator));
  }
  const stopObserving = observeProcess();
  return {
    metricsText: () => textFrom(prometheus),
    logStream: logProcessors.length > 0 ? createLogRecordStream() : undefined,
    async shutdown() {
      const stopped = sdk.shutdown().catch((error: unknown) => diag.warn("telemetry did not stop cleanly", error));
      await Promise.race([stopped, delay(flushTimeoutMs, undefined, { ref: false })]);
      stopObserving();
      recordMetricsIn(undefined);
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

/** The SDK takes what it is given here before its own variables, so it is given nothing where one of them is set. */
function attributeLimit(): { attributeValueLengthLimit?: number } {
  const { OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT, OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT } = process.env;
  if (OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT || OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT) return {};
  return { attributeValueLengthLimit: maxAttributeLength };
}

async function createMetricReaders(series: MetricSeries): Promise<metrics.IMetricReader[]> {
  const exporter = await createMetricExporter();
  if (exporter === undefined) return [];
  const exportIntervalMillis = Number(process.env.OTEL_METRIC_EXPORT_INTERVAL) || metricIntervalMs;
  const exportTimeoutMillis = Math.min(exportTimeoutMs("METRICS"), exportIntervalMillis);
  const schedule = { exportIntervalMillis, exportTimeoutMillis };
  return [new metrics.PeriodicExportingMetricReader({ exporter, metricProducers: [series], ...schedule })];
}

async function createLogProcessors(): Promise<logs.LogRecordProcessor[]> {
  const exporter = await createLogExporter();
  if (exporter === undefined) return [];
  const limits = { scheduledDelayMillis: logDelayMs, exportTimeoutMillis: exportTimeoutMs("LOGS") };
  return [new logs.BatchLogRecordProcessor({ exporter, ...limits })];
}

/** Each series bears the service's name: dashboards then do not depend on how jobs are named. */
const serializer = new PrometheusSerializer(undefined, false, /^service\.name$/, false, true);

async function textFrom(reader: PrometheusExporter): Promise<string> {
  if (isDisabled()) return "# OTEL_SDK_DISABLED is set: there are no metrics\n";
  const { resourceMetrics, errors } = await reader.collect({ timeoutMillis: collectTimeoutMs });
  for (const error of errors) diag.warn("a metric could not be collected", error);
  return serializer.serialize(resourceMetrics);
}

function isDisabled(): boolean {
  return process.env.OTEL_SDK_DISABLED?.toLowerCase() === "true";
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

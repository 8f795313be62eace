import { diag } from "@opentelemetry/api";
import type { logs, metrics } from "@opentelemetry/sdk-node";
import type { SpanExporter } from "@opentelemetry/sdk-trace";

/** An attempt to export, its retries included, where OTEL_EXPORTER_OTLP_TIMEOUT says nothing else. */
const defaultTimeoutMs = 3_000;

/** What is sent, as the standard variables spell it. */
export type Signal = "TRACES" | "METRICS" | "LOGS";

/** What every class of exporter is made with. */
type ExporterClass<Exporter> = new (config: { timeoutMillis: number }) => Exporter;

const defaultProtocol = "http/protobuf";

/** The classes by protocol. Only the one that is used is loaded. */
const exporters = {
  TRACES: {
    grpc: async () => (await import("@opentelemetry/exporter-trace-otlp-grpc")).OTLPTraceExporter,
    "http/json": async () => (await import("@opentelemetry/exporter-trace-otlp-http")).OTLPTraceExporter,
    "http/protobuf": async () => (await import("@opentelemetry/exporter-trace-otlp-proto")).OTLPTraceExporter,
  },
  METRICS: {
    grpc: async () => (await import("@opentelemetry/exporter-metrics-otlp-grpc")).OTLPMetricExporter,
    "http/json": async () => (await import("@opentelemetry/exporter-metrics-otlp-http")).OTLPMetricExporter,
    "http/protobuf": async () => (await import("@opentelemetry/exporter-metrics-otlp-proto")).OTLPMetricExporter,
  },
  LOGS: {
    grpc: async () => (await import("@opentelemetry/exporter-logs-otlp-grpc")).OTLPLogExporter,
    "http/json": async () => (await import("@opentelemetry/exporter-logs-otlp-http")).OTLPLogExporter,
    "http/protobuf": async () => (await import("@opentelemetry/exporter-logs-otlp-proto")).OTLPLogExporter,
  },
} as const;

/** Sends spans by OTLP; undefined where the standard variables name no collector for them. */
export function createTraceExporter(): Promise<SpanExporter | undefined> {
  return createExporter<SpanExporter>("TRACES", exporters.TRACES);
}

/** The same for metrics. */
export function createMetricExporter(): Promise<metrics.PushMetricExporter | undefined> {
  return createExporter<metrics.PushMetricExporter>("METRICS", exporters.METRICS);
}

/** The same for logs. */
export function createLogExporter(): Promise<logs.LogRecordExporter | undefined> {
  return createExporter<logs.LogRecordExporter>("LOGS", exporters.LOGS);
}

async function createExporter<Exporter>(
  signal: Signal,
  classes: Readonly<Record<string, () => Promise<ExporterClass<Exporter>>>>,
): Promise<Exporter | undefined> {
  if (!isWanted(signal)) return undefined;
  const protocol = otlpVariable(signal, "PROTOCOL") ?? defaultProtocol;
  const load = classes[protocol] ?? classes[defaultProtocol];
  if (!(protocol in classes)) {
    diag.warn(`OTLP protocol ${protocol} is not grpc, http/protobuf or http/json; using ${defaultProtocol}`);
  }
  const Exporter = await load?.();
  return Exporter && new Exporter({ timeoutMillis: exportTimeoutMs(signal) });
}

/** For which whoever exports waits, in milliseconds. */
export function exportTimeoutMs(signal: Signal): number {
  return Number(otlpVariable(signal, "TIMEOUT")) || defaultTimeoutMs;
}

/** Whether there is a collector, and OTEL_<signal>_EXPORTER, `otlp` by default, does not say otherwise. */
function isWanted(signal: Signal): boolean {
  const chosen = (process.env[`OTEL_${signal}_EXPORTER`] || "otlp").split(",").map((name) => name.trim());
  return chosen.includes("otlp") && otlpVariable(signal, "ENDPOINT") !== undefined;
}

/** A variable of OTLP, the signal's own before the one for all. An empty one counts as not set. */
function otlpVariable(signal: Signal, setting: string): string | undefined {
  const { env } = process;
  return env[`OTEL_EXPORTER_OTLP_${signal}_${setting}`] || env[`OTEL_EXPORTER_OTLP_${setting}`] || undefined;
}

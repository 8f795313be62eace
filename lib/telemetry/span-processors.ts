import { join } from "node:path";
import { BatchSpanProcessor, type SpanExporter, type SpanProcessor } from "@opentelemetry/sdk-trace";
import { createTraceExporter, exportTimeoutMs } from "./exporters.ts";
import { createTraceFileExporter } from "./trace-file.ts";

/** Spans wait so long for company before they are written: short enough to watch a run, long enough to batch. */
const batchDelayMs = 500;
/** Spans that may wait; when a collector is slower than that, more are dropped. */
const maxQueuedSpans = 8_192;
const traceFileBytes = 16 * 1024 * 1024;
const traceFiles = 4;

export interface SpanDestinations {
  readonly service: string;
  readonly instanceId: string;
  /** Folder for trace files; none without it. */
  readonly traceDir?: string | undefined;
}

/** What spans go through: to a file, to a collector, to both or to neither. */
export async function createSpanProcessors(destinations: SpanDestinations): Promise<SpanProcessor[]> {
  const { service, instanceId, traceDir } = destinations;
  const processors: SpanProcessor[] = [];
  if (traceDir !== undefined) {
    const path = join(traceDir, `${service}-${instanceId}.jsonl`);
    processors.push(batched(createTraceFileExporter({ path, maxBytes: traceFileBytes, maxFiles: traceFiles })));
  }
  const exporter = await createTraceExporter();
  if (exporter !== undefined) processors.push(batched(exporter));
  return processors;
}

function batched(exporter: SpanExporter): SpanProcessor {
  return new BatchSpanProcessor({
    exporter,
    scheduledDelayMillis: batchDelayMs,
    maxQueueSize: maxQueuedSpans,
    exportTimeoutMillis: exportTimeoutMs("TRACES"),
  });
}

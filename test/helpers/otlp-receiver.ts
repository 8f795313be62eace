import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { json } from "node:stream/consumers";
import type { TestContext } from "node:test";

/** Attributes by name, without the wrapper that says their type. */
export type Attributes = Readonly<Record<string, unknown>>;

/** Which process something came from. */
interface Sent {
  readonly service: string;
  readonly resource: Attributes;
}

export interface ReceivedSpan extends Sent {
  readonly name: string;
  readonly kind: number;
  readonly traceId: string;
  readonly spanId: string;
  /** Undefined for a root. */
  readonly parentSpanId: string | undefined;
  /** In nanoseconds since 1970. */
  readonly endTimeUnixNano: string;
  readonly attributes: Attributes;
  readonly events: readonly { readonly name: string; readonly attributes: Attributes }[];
  readonly links: readonly { readonly traceId: string; readonly attributes: Attributes }[];
}

/** One time series of a metric, as it was sent last. */
export interface ReceivedPoint extends Sent {
  readonly name: string;
  readonly attributes: Attributes;
  /** Of a histogram: how many values it has. */
  readonly value: number;
}

export interface ReceivedLog extends Sent {
  readonly eventName: string | undefined;
  readonly severityText: string;
  readonly body: unknown;
  readonly traceId: string | undefined;
  readonly attributes: Attributes;
}

/** A collector: takes OTLP as http/json and keeps all of it. */
export interface OtlpReceiver {
  /** The variables that make a process send everything here. */
  readonly env: Readonly<Record<string, string>>;
  readonly spans: readonly ReceivedSpan[];
  readonly logs: readonly ReceivedLog[];
  points(): readonly ReceivedPoint[];
  /** Everything that was received, as text. */
  text(): string;
}

export interface OtlpReceiverOptions {
  /** URL that spans are passed on to, as they came. */
  readonly forwardTracesTo?: string | undefined;
}

/** Starts a collector on a free port. It ends with the test. */
export async function startOtlpReceiver(
  t: Pick<TestContext, "after">,
  { forwardTracesTo }: OtlpReceiverOptions = {},
): Promise<OtlpReceiver> {
  const spans: ReceivedSpan[] = [];
  const logs: ReceivedLog[] = [];
  const points = new Map<string, ReceivedPoint>();
  const texts: string[] = [];
  const server = createServer(async (request, response) => {
    const body = (await json(request)) as Json;
    texts.push(JSON.stringify(body));
    if (request.url === "/v1/traces") {
      spans.push(...spansFrom(body));
      if (forwardTracesTo !== undefined) response.statusCode = await forward(body, forwardTracesTo);
    }
    if (request.url === "/v1/logs") logs.push(...each(body, "resourceLogs", "scopeLogs", "logRecords").map(logFrom));
    if (request.url === "/v1/metrics") {
      for (const point of each(body, "resourceMetrics", "scopeMetrics", "metrics").flatMap(pointsFrom)) {
        const { name, resource, attributes } = point;
        points.set(JSON.stringify([name, resource["process.pid"], attributes]), point);
      }
    }
    response.end("{}");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    env: { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, OTEL_EXPORTER_OTLP_PROTOCOL: "http/json" },
    spans,
    logs,
    points: () => [...points.values()],
    text: () => texts.join("\n"),
  };
}

/** Spans whose parent is not among them. */
export function orphansOf(spans: readonly ReceivedSpan[]): ReceivedSpan[] {
  const ids = new Set(spans.map(({ spanId }) => spanId));
  return spans.filter(({ parentSpanId }) => parentSpanId !== undefined && !ids.has(parentSpanId));
}

/** The spans of OTLP's JSON. */
export function spansFrom(body: Json): ReceivedSpan[] {
  return each(body, "resourceSpans", "scopeSpans", "spans").map(spanFrom);
}

/** Passes spans on and returns the status of the answer, which is that of ours. */
async function forward(body: Json, url: string): Promise<number> {
  const headers = { "content-type": "application/json" };
  try {
    const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
    await response.arrayBuffer();
    return response.status;
  } catch {
    // It ends before the services do, which send their last spans when they stop.
    return 502;
  }
}

/** JSON of which nothing is known but that it is made of objects and lists. */
export interface Json {
  readonly [key: string]: Json | Json[] | string | number | undefined;
}

interface Item extends Sent {
  readonly item: Json;
}

function listAt(json: Json, key: string): Json[] {
  const list = json[key];
  return Array.isArray(list) ? list : [];
}

/** The items of a request, each with the resource that it stands under. */
function each(body: Json, ...[perResource, perScope, items]: [string, string, string]): Item[] {
  return listAt(body, perResource).flatMap((entry) => {
    const resource = attributesOf(entry.resource as Json);
    return listAt(entry, perScope)
      .flatMap((scope) => listAt(scope, items))
      .map((item) => ({ item, resource, service: String(resource["service.name"]) }));
  });
}

function attributesOf(owner: Json): Attributes {
  return Object.fromEntries(listAt(owner, "attributes").map(({ key, value }) => [key, valueFrom(value as Json)]));
}

/** OTLP writes 64-bit integers as strings. */
function valueFrom(value: Json): unknown {
  const [[kind, content] = []] = Object.entries(value);
  return kind === "intValue" ? Number(content) : content;
}

function spanFrom({ item, ...sent }: Item): ReceivedSpan {
  return {
    ...sent,
    name: String(item.name),
    kind: Number(item.kind),
    traceId: String(item.traceId),
    spanId: String(item.spanId),
    parentSpanId: item.parentSpanId ? String(item.parentSpanId) : undefined,
    endTimeUnixNano: String(item.endTimeUnixNano),
    attributes: attributesOf(item),
    events: listAt(item, "events").map((event) => ({ name: String(event.name), attributes: attributesOf(event) })),
    links: listAt(item, "links").map((link) => ({ traceId: String(link.traceId), attributes: attributesOf(link) })),
  };
}

function logFrom({ item, ...sent }: Item): ReceivedLog {
  return {
    ...sent,
    eventName: item.eventName === undefined ? undefined : String(item.eventName),
    severityText: String(item.severityText),
    body: valueFrom((item.body ?? {}) as Json),
    traceId: item.traceId ? String(item.traceId) : undefined,
    attributes: attributesOf(item),
  };
}

function pointsFrom({ item, ...sent }: Item): ReceivedPoint[] {
  const data = (item.sum ?? item.gauge ?? item.histogram ?? {}) as Json;
  return listAt(data, "dataPoints").map((point) => ({
    ...sent,
    name: String(item.name),
    attributes: attributesOf(point),
    value: Number(point.asDouble ?? point.asInt ?? point.count),
  }));
}

import { z } from "zod";

/** A span as the waterfall needs it. */
export interface TraceSpan {
  /** 32 hexadecimal digits. */
  readonly traceId: string;
  /** 16 hexadecimal digits. */
  readonly spanId: string;
  /** Empty for a span without a parent. */
  readonly parentSpanId: string;
  readonly name: string;
  readonly kind: SpanKindName;
  /** `service.name` of the process that recorded it; "unknown" where it says none. */
  readonly service: string;
  /** Milliseconds since 1970, with fractions. */
  readonly startMs: number;
  /** Never before `startMs`. */
  readonly endMs: number;
  readonly attributes: Attributes;
  readonly events: readonly SpanEvent[];
  readonly links: readonly SpanLink[];
  /** Message of a span that failed, which may be empty; undefined for one that did not. */
  readonly error: string | undefined;
}

export type SpanKindName = "internal" | "server" | "client" | "producer" | "consumer";

export type AttributeValue =
  | string
  | number
  | boolean
  | null
  | readonly AttributeValue[]
  | { readonly [key: string]: AttributeValue };

export type Attributes = Readonly<Record<string, AttributeValue>>;

export interface SpanEvent {
  readonly name: string;
  readonly timeMs: number;
  readonly attributes: Attributes;
}

export interface SpanLink {
  readonly traceId: string;
  readonly spanId: string;
  readonly attributes: Attributes;
}

/** In the order of the numbers that OTLP gives them, from 1; 0 is "unspecified", which means internal. */
const kinds: readonly SpanKindName[] = ["internal", "internal", "server", "client", "producer", "consumer"];
const failedStatus = 2;

/** OTLP writes 64-bit integers as text, and takes numbers too. */
const nanoseconds = z
  .union([z.string().regex(/^\d{1,20}$/), z.number().int().nonnegative()])
  .transform((value) => Number(BigInt(value) / 1_000n) / 1_000);
const hexadecimal = z.string().regex(/^[0-9a-fA-F]+$/);
const id = hexadecimal.transform((value) => value.toLowerCase());
const attributes = z
  .array(z.object({ key: z.string(), value: z.unknown() }))
  .default([])
  .transform((list): Attributes => Object.fromEntries(list.map(({ key, value }) => [key, plainValue(value)])));

const spanSchema = z.object({
  traceId: id,
  spanId: id,
  parentSpanId: z.union([z.literal(""), id]).default(""),
  name: z.string().default(""),
  kind: z.number().default(0),
  startTimeUnixNano: nanoseconds,
  endTimeUnixNano: nanoseconds,
  attributes,
  events: z.array(z.object({ name: z.string().default(""), timeUnixNano: nanoseconds, attributes })).default([]),
  links: z.array(z.object({ traceId: id, spanId: id, attributes })).default([]),
  status: z.object({ code: z.number().default(0), message: z.string().default("") }).optional(),
});

const requestSchema = z.object({
  resourceSpans: z
    .array(
      z.object({
        resource: z.object({ attributes }).optional(),
        scopeSpans: z.array(z.object({ spans: z.array(spanSchema).default([]) })).default([]),
      }),
    )
    .default([]),
});

/**
 * The spans of one line of a trace file: OTLP's JSON encoding of an export request, `{"resourceSpans":[...]}`. Undefined
 * where the line is no such thing, be it cut off or something else.
 *
 * Encoding: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
 */
export function spansFromOtlpLine(line: string): TraceSpan[] | undefined {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch {
    // A process that was killed leaves half a line. The caller counts it.
    return undefined;
  }
  const { success, data } = requestSchema.safeParse(json);
  if (!success) return undefined;
  return data.resourceSpans.flatMap(({ resource, scopeSpans }) => {
    const service = String(resource?.attributes["service.name"] ?? "unknown");
    return scopeSpans.flatMap(({ spans }) => spans.map((span) => spanFrom(span, service)));
  });
}

function spanFrom(span: z.output<typeof spanSchema>, service: string): TraceSpan {
  const { traceId, spanId, parentSpanId, name, startTimeUnixNano, endTimeUnixNano, status } = span;
  return {
    traceId,
    spanId,
    parentSpanId,
    name,
    kind: kinds[span.kind] ?? "internal",
    service,
    startMs: startTimeUnixNano,
    endMs: Math.max(startTimeUnixNano, endTimeUnixNano),
    attributes: span.attributes,
    events: span.events.map(({ timeUnixNano, ...event }) => ({ ...event, timeMs: timeUnixNano })),
    links: span.links,
    error: status?.code === failedStatus ? status.message : undefined,
  };
}

/** OTLP wraps each value in an object that names its type, such as `{"intValue":"3"}`. */
function plainValue(wrapped: unknown): AttributeValue {
  if (typeof wrapped !== "object" || wrapped === null) return null;
  const [type, value] = Object.entries(wrapped)[0] ?? [];
  switch (type) {
    case "stringValue":
    case "bytesValue":
      return String(value);
    case "intValue":
    case "doubleValue":
      return Number(value);
    case "boolValue":
      return value === true;
    case "arrayValue":
      return listIn(value).map(plainValue);
    case "kvlistValue":
      return Object.fromEntries(listIn(value).map((entry) => entryFrom(entry)));
    default:
      return null;
  }
}

function listIn(value: unknown): readonly unknown[] {
  const { values } = (value ?? {}) as { readonly values?: unknown };
  return Array.isArray(values) ? values : [];
}

function entryFrom(entry: unknown): [string, AttributeValue] {
  const { key, value } = (entry ?? {}) as { readonly key?: unknown; readonly value?: unknown };
  return [String(key), plainValue(value)];
}

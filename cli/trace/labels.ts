import { eventTypes } from "../../lib/bus/event-types.ts";
import type { AttributeName } from "../../lib/telemetry/attributes.ts";
import { count, percent } from "../format.ts";
import type { AttributeValue, TraceSpan } from "./otlp.ts";

/**
 * The name of a span for people: `send dataset.prepared` for a message, by the name that the event has everywhere else,
 * `PipelineService/RequestRun` for a call, and for anything else its own name.
 */
export function labelOf({ name, attributes }: TraceSpan): string {
  const event = eventTypes.get(String(attributes["cloudevents.event_type"]))?.options.name;
  if (event !== undefined) return `${name.split(" ")[0]} ${event}`;
  return name.replace(/^(?:\w+\.)+(?=\w+\/\w+$)/, "");
}

/** What a person wants to know of a span beside its name, and how it is said. Absent attributes say nothing. */
const facts: readonly [AttributeName, (value: AttributeValue) => string][] = [
  ["millrace.training.epoch", (value) => `${value}`],
  ["millrace.training.loss", (value) => `loss ${decimal(value)}`],
  ["millrace.training.accuracy", (value) => `accuracy ${share(value)}`],
  ["millrace.training.validation_accuracy", (value) => `validation ${share(value)}`],
  ["millrace.dataset.name", text],
  ["millrace.dataset.split", text],
  ["millrace.shard.index", (value) => `#${value}`],
  ["millrace.network.name", text],
  ["millrace.checkpoint.epochs", (value) => `after ${whole(value)} epochs`],
  ["millrace.checkpoint.steps", (value) => (value === 0 ? "" : `${whole(value)} steps`)],
  ["millrace.model.version", (value) => `v${value}`],
  ["millrace.images.count", (value) => `${whole(value)} images`],
  ["millrace.images.skipped", (value) => (value === 0 ? "" : `${whole(value)} left out`)],
  ["millrace.evaluation.accuracy", (value) => `accuracy ${share(value)}`],
  ["millrace.evaluation.promoted", (value) => (value === true ? "promoted" : "rejected")],
  ["millrace.model.alias", text],
  ["millrace.files.count", (value) => `${whole(value)} files`],
  ["millrace.archive.size_bytes", (value) => bytes(Number(value))],
  ["millrace.artifact.size_bytes", (value) => bytes(Number(value))],
];

/** The facts about one span, or those that several equal ones come to: how many, and their bytes together. */
export function noteOf(spans: readonly TraceSpan[]): string {
  const [first] = spans;
  if (first === undefined) return "";
  if (spans.length > 1) return [`×${count(spans.length)}`, totalBytes(spans)].filter(Boolean).join(", ");
  const said = facts.map(([name, say]) => {
    const value = first.attributes[name];
    return value === undefined ? "" : say(value);
  });
  return said.filter(Boolean).join(", ");
}

function totalBytes(spans: readonly TraceSpan[]): string {
  const sizes = spans.map(({ attributes }) => attributes["millrace.artifact.size_bytes"]);
  if (sizes.some((size) => typeof size !== "number")) return "";
  return bytes(sizes.reduce<number>((sum, size) => sum + Number(size), 0));
}

/** Which delivery of its message a span handles; 1 where it handles none. */
export function attemptOf({ attributes }: TraceSpan): number {
  const attempt = Number(attributes["millrace.delivery.attempt"] ?? 1);
  return Number.isInteger(attempt) ? attempt : 1;
}

/** The stable code of an error and what it says. */
export function errorOf({ attributes, error = "" }: TraceSpan): string {
  return [attributes["error.type"], error].filter(Boolean).join(": ") || "failed";
}

/** A time in the unit that suits it: "80 µs", "3.1 ms", "423 ms", "4.2 s", "2 min 05 s", "1 h 02 min". */
export function duration(ms: number): string {
  if (ms <= 0) return "0 ms";
  if (ms < 0.0995) return `${Math.max(1, Math.round(ms * 1000))} µs`;
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 99_950) return `${(ms / 1000).toFixed(1)} s`;
  const minutes = Math.floor(Math.round(ms / 1000) / 60);
  if (minutes < 60) return `${minutes} min ${padded(Math.round(ms / 1000) % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${padded(minutes % 60)} min`;
}

function padded(value: number): string {
  return String(value).padStart(2, "0");
}

function bytes(value: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let [size, unit] = [value, 0];
  for (; size >= 999.5 && unit < units.length - 1; unit++) size /= 1000;
  return `${size < 9.95 && unit > 0 ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}

function text(value: AttributeValue): string {
  return String(value);
}

function whole(value: AttributeValue): string {
  return count(Number(value));
}

function decimal(value: AttributeValue): string {
  return Number(value).toFixed(3);
}

function share(value: AttributeValue): string {
  return percent(Number(value));
}

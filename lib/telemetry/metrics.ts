import {
  type BatchObservableCallback,
  type Counter,
  type Gauge,
  type Histogram,
  type Meter,
  type MeterProvider,
  type MetricOptions,
  metrics,
  type Observable,
} from "@opentelemetry/api";
import { type MetricName, type MetricTable, metricTable } from "./metric-table.ts";

/** Metrics that are written when something happens. */
export type RecordedMetric = {
  [Name in MetricName]: MetricTable[Name]["kind"] extends `observable ${string}` ? never : Name;
}[MetricName];
/** Metrics whose values are asked for when they are collected. */
export type ObservedMetric = Exclude<MetricName, RecordedMetric>;

type AttributesOf<Name extends MetricName> = MetricTable[Name]["attributes"][number];

/** What a metric is broken down by: all attributes of the table; `error.type` only where something failed. */
export type MetricAttributes<Name extends MetricName> = Readonly<
  Record<Exclude<AttributesOf<Name>, "error.type">, string | number | boolean> &
    Partial<Record<Extract<AttributesOf<Name>, "error.type">, string>>
>;

/**
 * Writes a metric: adds to a counter, sets a gauge, or puts a value into a histogram. Does nothing where telemetry has not
 * been started.
 *
 * @example recordMetric("millrace.evaluation.images", 250, { "millrace.model.name": "default" })
 */
export function recordMetric<Name extends RecordedMetric>(
  name: Name,
  value: number,
  attributes: MetricAttributes<Name>,
): void {
  const instrument = instrumentOf(name);
  if ("add" in instrument) instrument.add(value, attributes);
  else if ("record" in instrument) instrument.record(value, attributes);
}

/** Takes the values of observed metrics while they are collected. */
export interface Observer {
  observe<Name extends ObservedMetric>(name: Name, value: number, attributes: MetricAttributes<Name>): void;
}

/**
 * Asks for the values of metrics each time they are collected, until the function that it returns is called. A series that
 * is left out keeps its last value. Call it after telemetry has been started: before, nobody collects.
 *
 * @example observeMetrics(["process.uptime"], ({ observe }) => observe("process.uptime", process.uptime(), {}))
 */
export function observeMetrics(
  names: readonly ObservedMetric[],
  ask: (observer: Observer) => void | Promise<void>,
): () => void {
  const instruments = names.map((name) => instrumentOf(name) as Observable);
  const callback: BatchObservableCallback = (result) =>
    ask({ observe: (name, value, attributes) => result.observe(instrumentOf(name) as Observable, value, attributes) });
  const meter = meterOf(metrics.getMeterProvider());
  meter.addBatchObservableCallback(callback, instruments);
  return () => meter.removeBatchObservableCallback(callback, instruments);
}

type Instrument = Counter | Gauge | Histogram | Observable;

/**
 * Instruments by provider: looking one up costs less than asking the SDK for it again at each call, and a provider that
 * is registered later gets its own.
 */
const instruments = new WeakMap<MeterProvider, Map<MetricName, Instrument>>();

function instrumentOf(name: MetricName): Instrument {
  const provider = metrics.getMeterProvider();
  const known = instruments.get(provider) ?? new Map<MetricName, Instrument>();
  instruments.set(provider, known);
  const instrument = known.get(name) ?? createInstrument(meterOf(provider), name);
  known.set(name, instrument);
  return instrument;
}

function meterOf(provider: MeterProvider): Meter {
  return provider.getMeter("millrace");
}

function createInstrument(meter: Meter, name: MetricName): Instrument {
  const metric = metricTable[name];
  const options: MetricOptions = {
    unit: metric.unit,
    description: metric.description,
    ...("buckets" in metric && { advice: { explicitBucketBoundaries: [...metric.buckets] } }),
  };
  switch (metric.kind) {
    case "counter":
      return meter.createCounter(name, options);
    case "gauge":
      return meter.createGauge(name, options);
    case "histogram":
      return meter.createHistogram(name, options);
    case "observable counter":
      return meter.createObservableCounter(name, options);
    case "observable gauge":
      return meter.createObservableGauge(name, options);
    case "observable up-down counter":
      return meter.createObservableUpDownCounter(name, options);
  }
}

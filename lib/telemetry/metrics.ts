import {
  type BatchObservableCallback,
  type Meter,
  type MeterProvider,
  metrics,
  type Observable,
} from "@opentelemetry/api";
import type { MetricSeries } from "./metric-series.ts";
import {
  type MetricName,
  type MetricTable,
  metricTable,
  type ObservedMetric,
  type RecordedMetric,
} from "./metric-table.ts";

/** Where recorded metrics are counted. */
let series: MetricSeries | undefined;

/** Counts what is recorded from now on in `target`; undefined ends that. For the start of telemetry. */
export function recordMetricsIn(target: MetricSeries | undefined): void {
  series = target;
}

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
  series?.record(name, value, attributes);
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
  const observables = names.map(observableOf);
  const callback: BatchObservableCallback = (result) =>
    ask({ observe: (name, value, attributes) => result.observe(observableOf(name), value, attributes) });
  const meter = meterOf(metrics.getMeterProvider());
  meter.addBatchObservableCallback(callback, observables);
  return () => meter.removeBatchObservableCallback(callback, observables);
}

/** Observed metrics by provider: one that is registered later gets its own. */
const observables = new WeakMap<MeterProvider, Map<ObservedMetric, Observable>>();

function observableOf(name: ObservedMetric): Observable {
  const provider = metrics.getMeterProvider();
  const known = observables.get(provider) ?? new Map<ObservedMetric, Observable>();
  observables.set(provider, known);
  const observable = known.get(name) ?? createObservable(meterOf(provider), name);
  known.set(name, observable);
  return observable;
}

function meterOf(provider: MeterProvider): Meter {
  return provider.getMeter("millrace");
}

function createObservable(meter: Meter, name: ObservedMetric): Observable {
  const { kind, unit, description } = metricTable[name];
  switch (kind) {
    case "observable counter":
      return meter.createObservableCounter(name, { unit, description });
    case "observable gauge":
      return meter.createObservableGauge(name, { unit, description });
    case "observable up-down counter":
      return meter.createObservableUpDownCounter(name, { unit, description });
  }
}

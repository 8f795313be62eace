/**
 * Recorded metrics, counted: each set of attribute values of a metric is a series.
 *
 * The SDK's instruments sort and hash the attributes at each record, and a prediction is recorded by several of them. Here the
 * table says which attributes a metric has, so their values lead through maps to the series, which costs a hundredth of that.
 * The SDK's readers take metrics from such a producer as from their own instruments, and export them alike.
 */
import { type Attributes, type AttributeValue, type HrTime, ValueType } from "@opentelemetry/api";
import { core, metrics, resources } from "@opentelemetry/sdk-node";
import type { SpanAttributes } from "./attributes.ts";
import { type MetricTable, metricTable, type RecordedMetric, recordedMetrics } from "./metric-table.ts";

/** Series of one metric; what comes beyond is counted together, under the attribute that OpenTelemetry has for that. */
const maxSeries = 2_000;
const overflowAttributes: SpanAttributes = { "otel.metric.overflow": true };

/** What a metric's values so far come to. */
interface Aggregate<Value> {
  record(value: number): void;
  /** For an export: it does not change when more is recorded. */
  snapshot(): Value;
}

interface Series {
  readonly attributes: Attributes;
  readonly startTime: HrTime;
  readonly aggregate: Aggregate<number | metrics.Histogram>;
}

/** A place in a metric's tree: below it, the values of the attribute that comes next. */
interface Place {
  readonly next: Map<AttributeValue | undefined, Place>;
  series?: Series;
}

/** Counts what is recorded, and tells the SDK's readers. */
export interface MetricSeries extends metrics.MetricProducer {
  record(name: RecordedMetric, value: number, attributes: Attributes): void;
}

/** A count of all recorded metrics, none of which has a series yet. What it tells is cumulative. */
export function createMetricSeries(): MetricSeries {
  const recorded = new Map(recordedMetrics.map((name) => [name, createSeriesOf(name)]));
  return {
    record: (name, value, attributes) => recorded.get(name)?.find(attributes).aggregate.record(value),
    collect: () => {
      const endTime = core.hrTime();
      const withSeries = [...recorded].filter(([, { all }]) => all.length > 0);
      const told = withSeries.map(([name, { all }]) => describe(name, all, endTime));
      const scopeMetrics = [{ scope: { name: "millrace" }, metrics: told }];
      return Promise.resolve({ resourceMetrics: { resource: resources.emptyResource(), scopeMetrics }, errors: [] });
    },
  };
}

/** The series of one metric. */
interface SeriesOfMetric {
  readonly all: readonly Series[];
  /** The one with these values, which is made where it is not there yet. */
  find(attributes: Attributes): Series;
}

function createSeriesOf(name: RecordedMetric): SeriesOfMetric {
  const names: readonly string[] = metricTable[name].attributes;
  const all: Series[] = [];
  const root: Place = { next: new Map() };
  const overflow: Place = { next: new Map() };

  function seriesAt(place: Place, attributes: () => Attributes): Series {
    if (place.series === undefined) {
      place.series = { attributes: attributes(), startTime: core.hrTime(), aggregate: createAggregate(name) };
      all.push(place.series);
    }
    return place.series;
  }

  return {
    all,
    find(attributes) {
      let place = root;
      for (const attribute of names) {
        const value = attributes[attribute];
        let next = place.next.get(value);
        if (next === undefined) {
          if (all.length >= maxSeries) return seriesAt(overflow, () => overflowAttributes);
          next = { next: new Map() };
          place.next.set(value, next);
        }
        place = next;
      }
      // A copy, in the order of the table: the caller may use its object again.
      return seriesAt(place, () => {
        const present = names.filter((each) => attributes[each] !== undefined);
        return Object.fromEntries(present.map((each) => [each, attributes[each]]));
      });
    },
  };
}

function createAggregate(name: RecordedMetric): Series["aggregate"] {
  const metric = metricTable[name];
  switch (metric.kind) {
    case "counter":
      return createSum();
    case "gauge":
      return createLastValue();
    case "histogram":
      return createHistogram(metric.buckets);
  }
}

function createSum(): Aggregate<number> {
  let sum = 0;
  return {
    record(value) {
      sum += value;
    },
    snapshot: () => sum,
  };
}

function createLastValue(): Aggregate<number> {
  let last = 0;
  return {
    record(value) {
      last = value;
    },
    snapshot: () => last,
  };
}

/** @param bounds The buckets' upper bounds, which belong to them; the last bucket has none. */
function createHistogram(bounds: readonly number[]): Aggregate<metrics.Histogram> {
  const counts = Array.from({ length: bounds.length + 1 }, () => 0);
  let [count, sum, min, max] = [0, 0, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  return {
    record(value) {
      let bucket = 0;
      while (bucket < bounds.length && value > (bounds[bucket] as number)) bucket++;
      (counts[bucket] as number)++;
      count++;
      sum += value;
      if (value < min) min = value;
      if (value > max) max = value;
    },
    snapshot: () => ({ buckets: { boundaries: [...bounds], counts: [...counts] }, count, sum, min, max }),
  };
}

function describe(name: RecordedMetric, all: readonly Series[], endTime: HrTime): metrics.MetricData {
  const { kind, unit, description }: MetricTable[RecordedMetric] = metricTable[name];
  const descriptor = { name, unit, description, valueType: ValueType.DOUBLE };
  const aggregationTemporality = metrics.AggregationTemporality.CUMULATIVE;
  const dataPoints = all.map(({ attributes, startTime, aggregate }) => {
    return { attributes, startTime, endTime, value: aggregate.snapshot() };
  });
  const { SUM, GAUGE, HISTOGRAM } = metrics.DataPointType;
  const dataPointType = { counter: SUM, gauge: GAUGE, histogram: HISTOGRAM }[kind];
  const isMonotonic = kind === "counter" && { isMonotonic: true };
  // Which type of value belongs to which type of point is what createAggregate chooses by the same kind.
  return { descriptor, aggregationTemporality, dataPointType, dataPoints, ...isMonotonic } as metrics.MetricData;
}

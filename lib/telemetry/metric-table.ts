import type { AttributeName } from "./attributes.ts";

/** Upper bounds of buckets in seconds, for what answers within a minute: calls, publications, batches. */
const callBucketsSeconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
/** The same for the work of a stage, which takes from milliseconds to hours. */
const workBucketsSeconds = [0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 14_400];
/** Powers of two up to the largest batch that can be set. */
const batchBuckets = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024];

/** One instrument. */
interface Metric {
  /** Those that begin with "observable" are asked for when metrics are collected, the others are written when something happens. */
  readonly kind:
    | "counter"
    | "gauge"
    | "histogram"
    | "observable counter"
    | "observable gauge"
    | "observable up-down counter";
  /** In UCUM, as OpenTelemetry writes it: `s`, `By`, `{image}`, `1` for a ratio. */
  readonly unit: string;
  readonly description: string;
  readonly attributes: readonly AttributeName[];
  /** Histograms only: upper bounds of the buckets. */
  readonly buckets?: readonly number[];
}

/**
 * Every metric that Millrace writes. One table, as for attributes: dashboards, alerts and docs/telemetry.md are checked
 * against it.
 *
 * Names without the `millrace.` prefix are those of the OpenTelemetry semantic conventions. No attribute holds the id of
 * a run, an event or a request: each of their values would be a time series of its own.
 */
export const metricTable = {
  "rpc.server.call.duration": {
    kind: "histogram",
    unit: "s",
    description: "Duration of calls answered. A stream counts when it ends.",
    attributes: ["rpc.system.name", "rpc.method", "rpc.response.status_code", "error.type"],
    buckets: callBucketsSeconds,
  },
  "messaging.client.sent.messages": {
    kind: "counter",
    unit: "{message}",
    description: "Events that were to be published.",
    attributes: ["messaging.system", "messaging.operation.name", "messaging.destination.template", "error.type"],
  },
  "messaging.client.operation.duration": {
    kind: "histogram",
    unit: "s",
    description: "Time until the broker had stored an event, waiting for the broker included.",
    attributes: ["messaging.system", "messaging.operation.name", "messaging.destination.template", "error.type"],
    buckets: callBucketsSeconds,
  },
  "messaging.client.consumed.messages": {
    kind: "counter",
    unit: "{message}",
    description: "Deliveries to a stage, repeated ones included.",
    attributes: ["messaging.system", "messaging.operation.name", "messaging.consumer.group.name"],
  },
  "messaging.process.duration": {
    kind: "histogram",
    unit: "s",
    description: "Time that a stage worked on a message.",
    attributes: ["messaging.system", "messaging.operation.name", "messaging.consumer.group.name", "error.type"],
    buckets: workBucketsSeconds,
  },
  "millrace.consumer.redelivered.messages": {
    kind: "counter",
    unit: "{message}",
    description: "Deliveries of a message that had been delivered before.",
    attributes: ["messaging.consumer.group.name"],
  },
  "millrace.consumer.settled.messages": {
    kind: "counter",
    unit: "{message}",
    description: "Deliveries by what became of them.",
    attributes: ["messaging.consumer.group.name", "millrace.consumer.settlement"],
  },
  "millrace.consumer.pending": {
    kind: "observable gauge",
    unit: "{message}",
    description: "Messages that wait for a stage. Each instance of the stage reports the same number.",
    attributes: ["messaging.consumer.group.name"],
  },
  "millrace.consumer.ack_pending": {
    kind: "observable gauge",
    unit: "{message}",
    description:
      "Messages that are being worked on, or wait for their next try. Each instance reports the same number.",
    attributes: ["messaging.consumer.group.name"],
  },
  "millrace.consumer.lag": {
    kind: "observable gauge",
    unit: "s",
    description:
      "Age of the oldest message that a stage has not finished, be it in hand or waiting; 0 if there is none.",
    attributes: ["messaging.consumer.group.name"],
  },
  "millrace.dataset.images": {
    kind: "counter",
    unit: "{image}",
    description: "Images of sources that were prepared.",
    attributes: ["millrace.images.outcome"],
  },
  "millrace.training.throughput": {
    kind: "gauge",
    unit: "{image}/s",
    description: "Speed of the training under way; 0 when it has ended.",
    attributes: ["millrace.network.name"],
  },
  "millrace.training.epoch": {
    kind: "gauge",
    unit: "{epoch}",
    description: "Number of the epoch that is under way or ended last, from 1.",
    attributes: ["millrace.network.name"],
  },
  "millrace.training.loss": {
    kind: "gauge",
    unit: "1",
    description: "Mean training loss of that epoch so far.",
    attributes: ["millrace.network.name"],
  },
  "millrace.training.accuracy": {
    kind: "gauge",
    unit: "1",
    description: "Training accuracy of that epoch so far, 0 to 1.",
    attributes: ["millrace.network.name"],
  },
  "millrace.training.validation_accuracy": {
    kind: "gauge",
    unit: "1",
    description: "Accuracy on the validation images after the last epoch, 0 to 1. Absent without validation.",
    attributes: ["millrace.network.name"],
  },
  "millrace.evaluation.images": {
    kind: "counter",
    unit: "{image}",
    description: "Images that models were measured on.",
    attributes: ["millrace.model.name"],
  },
  "millrace.evaluation.accuracy": {
    kind: "gauge",
    unit: "1",
    description: "Accuracy of the version measured last, 0 to 1.",
    attributes: ["millrace.model.name"],
  },
  "millrace.evaluation.decisions": {
    kind: "counter",
    unit: "{decision}",
    description: "Decisions of the gate.",
    attributes: ["millrace.model.name", "millrace.evaluation.promoted"],
  },
  "millrace.serving.queue.length": {
    kind: "observable gauge",
    unit: "{image}",
    description: "Images that wait or are being decoded.",
    attributes: [],
  },
  "millrace.serving.queue.limit": {
    kind: "observable gauge",
    unit: "{image}",
    description: "Length of the queue at which images are refused.",
    attributes: [],
  },
  "millrace.serving.model.info": {
    kind: "observable gauge",
    unit: "1",
    description: "1 for the version that answers, 0 for those that did before.",
    attributes: ["millrace.model.name", "millrace.model.version", "millrace.model.digest"],
  },
  "millrace.serving.batch.size": {
    kind: "histogram",
    unit: "{image}",
    description: "Images in a batch, by why it began.",
    attributes: ["millrace.batch.reason"],
    buckets: batchBuckets,
  },
  "millrace.serving.queue.duration": {
    kind: "histogram",
    unit: "s",
    description: "Time that the image of a batch that came first has waited for the batch to begin.",
    attributes: ["millrace.batch.reason"],
    buckets: callBucketsSeconds,
  },
  "millrace.serving.decode.duration": {
    kind: "histogram",
    unit: "s",
    description: "Time until an image was decoded, waiting for a thread included.",
    attributes: [],
    buckets: callBucketsSeconds,
  },
  "millrace.serving.inference.duration": {
    kind: "histogram",
    unit: "s",
    description: "Time that the network took for a batch.",
    attributes: ["millrace.model.name", "millrace.model.version"],
    buckets: callBucketsSeconds,
  },
  "millrace.serving.predictions": {
    kind: "counter",
    unit: "{prediction}",
    description: "Images classified, by the class that came first.",
    attributes: ["millrace.model.name", "millrace.model.version", "millrace.class.name"],
  },
  "millrace.serving.shadow.images": {
    kind: "counter",
    unit: "{image}",
    description: "Images that the shadow was asked about, by how its answer compares.",
    attributes: ["millrace.model.name", "millrace.model.version", "millrace.shadow.outcome"],
  },
  "millrace.serving.feedback": {
    kind: "counter",
    unit: "{prediction}",
    description: "Answers of which the true class was said, by whether they had named it.",
    attributes: ["millrace.model.name", "millrace.model.version", "millrace.feedback.correct"],
  },
  "millrace.serving.drift": {
    kind: "gauge",
    unit: "1",
    description:
      "How far the last window of answers is from the data set, over the distance that counts as drift: above 1 it has drifted.",
    attributes: ["millrace.model.name", "millrace.model.version", "millrace.drift.measure"],
  },
  "millrace.service.serving": {
    kind: "observable gauge",
    unit: "1",
    description: "1 while the service serves, as its health says; else 0.",
    attributes: [],
  },
  "process.cpu.time": {
    kind: "observable counter",
    unit: "s",
    description: "Processor time of the process, all threads.",
    attributes: ["cpu.mode"],
  },
  "process.memory.usage": {
    kind: "observable up-down counter",
    unit: "By",
    description: "Physical memory in use.",
    attributes: [],
  },
  "process.uptime": {
    kind: "observable gauge",
    unit: "s",
    description: "Time since the process started.",
    attributes: [],
  },
  "nodejs.eventloop.delay.mean": {
    kind: "observable gauge",
    unit: "s",
    description:
      "Mean delay of the event loop in the last full 10 s. The 20 ms of the timer that measures are part of it.",
    attributes: [],
  },
  "nodejs.eventloop.delay.p99": {
    kind: "observable gauge",
    unit: "s",
    description: "99th percentile of the same.",
    attributes: [],
  },
  "nodejs.eventloop.delay.max": {
    kind: "observable gauge",
    unit: "s",
    description: "Longest delay of the same.",
    attributes: [],
  },
  "nodejs.eventloop.time": {
    kind: "observable counter",
    unit: "s",
    description: "Time that the event loop has spent in each state.",
    attributes: ["nodejs.eventloop.state"],
  },
} as const satisfies Record<string, Metric>;

export type MetricTable = typeof metricTable;
export type MetricName = keyof MetricTable;

/** Metrics that are written when something happens. */
export type RecordedMetric = {
  [Name in MetricName]: MetricTable[Name]["kind"] extends `observable ${string}` ? never : Name;
}[MetricName];
/** Metrics whose values are asked for when they are collected. */
export type ObservedMetric = Exclude<MetricName, RecordedMetric>;

/** The names of those that are recorded. */
export const recordedMetrics = (Object.keys(metricTable) as MetricName[]).filter(
  (name): name is RecordedMetric => !metricTable[name].kind.startsWith("observable"),
);

/**
 * Every attribute name that Millrace writes on spans, metrics and resources, with what it holds.
 *
 * Names without the `millrace.` prefix are those of the OpenTelemetry semantic conventions. One table, because a
 * dashboard or a query that asks for a name must find it spelled the same way in every service.
 */
export const attributeTable = {
  "cloudevents.event_id": "Id of the event, equal for each delivery of it.",
  "cloudevents.event_source": "Service that published the event.",
  "cloudevents.event_type": "Type of the event, such as millrace.v1.ModelTrained.",
  "cpu.mode": "Where processor time was spent: user or system.",
  "error.type": "Stable error code, or the gRPC status name, of what failed.",
  "exception.message": "Message of an exception (on its span event).",
  "exception.stacktrace": "Stack of an exception (on its span event).",
  "exception.type": "Code or class of an exception (on its span event).",
  "host.arch": "Processor architecture (resource).",
  "host.name": "Host name (resource).",
  "messaging.consumer.group.name": "Durable consumer that delivers the message.",
  "messaging.destination.name": "Subject of the message.",
  "messaging.destination.template": "Subject with placeholders instead of ids, for grouping.",
  "messaging.message.id": "Id by which JetStream drops duplicates.",
  "messaging.operation.name": "What was done, in the client's own words: publish, receive, process.",
  "messaging.operation.type": "What was done, in the conventions' words: send, receive, process.",
  "messaging.system": "Always nats; the older name of messaging.system.name, which dashboards still ask for.",
  "messaging.system.name": "Always nats.",
  "nodejs.eventloop.state": "What the event loop did: active or idle.",
  "process.pid": "Process id (resource).",
  "process.runtime.name": "Always nodejs (resource).",
  "process.runtime.version": "Version of Node (resource).",
  "rpc.method": "Service and method, such as millrace.v1.PredictionService/Predict.",
  "rpc.response.status_code": "gRPC status name in capitals, such as NOT_FOUND.",
  "rpc.system.name": "grpc, connectrpc, or http for REST.",
  "server.address": "Host that a client calls.",
  "service.instance.id": "Which process of the service this is (resource).",
  "service.name": "Service (resource).",
  "service.namespace": "Always millrace (resource).",
  "service.version": "Version of Millrace (resource).",
  "millrace.artifact.digest": "SHA-256 digest of an artifact that is written or read.",
  "millrace.artifact.size_bytes": "Size of that artifact in bytes.",
  "millrace.artifact.store": "Driver that holds it: file or nats.",
  "millrace.batch.reason": "Why a batch began: full, delay or idle.",
  "millrace.class.name": "Class that a prediction puts first; _OTHER beyond the first hundred classes of a model.",
  "millrace.consumer.settlement": "What became of a delivered message: acknowledge, give back, retry or dead letter.",
  "millrace.dataset.digest": "Digest of the data set's manifest.",
  "millrace.dataset.name": "Name of the data set.",
  "millrace.delivery.attempt": "Which delivery of the message this is, from 1.",
  "millrace.error.retryable": "Whether the same work may succeed when it is tried again.",
  "millrace.evaluation.promoted": "Whether the gate let the model pass.",
  "millrace.images.count": "Images that were decoded, trained on, measured or classified.",
  "millrace.images.outcome": "What became of an image of a source: decoded or skipped.",
  "millrace.images.skipped": "Images that could not be read and were left out.",
  "millrace.model.digest": "Digest of the model's manifest.",
  "millrace.model.name": "Name of the model.",
  "millrace.model.version": "Version of the model.",
  "millrace.network.name": "Network that is trained, such as small.",
  "millrace.rpc.protocol": "How the caller spoke: connect, grpc, grpc-web or rest.",
  "millrace.run.id": "Run that the work belongs to.",
  "millrace.stage": "Stage of the pipeline: ingestion, training, evaluation, prediction.",
  "millrace.training.accuracy": "Training accuracy of an epoch, 0..1.",
  "millrace.training.epoch": "Number of the epoch, from 1.",
  "millrace.training.images_per_second": "Training speed.",
  "millrace.training.loss": "Mean training loss of an epoch.",
  "millrace.training.validation_accuracy":
    "Accuracy on the validation images after an epoch, 0..1. Absent without validation.",
} as const satisfies Record<string, string>;

export type AttributeName = keyof typeof attributeTable;

/** Attributes of a span: names from the table only, so that a misspelt name does not compile. */
export type SpanAttributes = Readonly<Partial<Record<AttributeName, string | number | boolean>>>;

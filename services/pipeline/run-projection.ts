import { create } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  type Run,
  type RunEvent,
  RunEventSchema,
  RunSchema,
  RunStageSchema,
  RunStatus,
} from "../../gen/millrace/v1/pipeline_pb.ts";
import type { ReceivedEvent } from "../../lib/bus/cloud-event.ts";

/** An event as WatchRun sends it, or undefined for one that is not of a run. */
export function runEventFrom(event: ReceivedEvent): RunEvent | undefined {
  const field = RunEventSchema.fields.find(
    ({ message, oneof }) => oneof?.name === "event" && message?.typeName === event.type,
  );
  if (field === undefined) return undefined;
  return create(RunEventSchema, {
    sequence: BigInt(event.sequence),
    id: event.id,
    causationId: event.causationId,
    subject: event.subject,
    time: timestampFromDate(event.time),
    source: event.source,
    event: { case: field.localName, value: event.message } as RunEvent["event"],
  });
}

/** A run of which nothing is known yet. */
export function emptyRun(runId: string): Run {
  return create(RunSchema, { runId, status: RunStatus.PENDING });
}

/** Whether nothing more happens in a run. */
export function hasEnded({ status }: Run): boolean {
  return status === RunStatus.SUCCEEDED || status === RunStatus.FAILED || status === RunStatus.CANCELLED;
}

/** The run after one more of its events. Pure: replaying the same events gives the same run. */
export function applyRunEvent(run: Run, runEvent: RunEvent, { originTraceparent }: ReceivedEvent): Run {
  const changes = changesBy(runEvent);
  const status = statusAfter(run, runEvent, changes);
  const next = withStageTimes({ ...run, ...changes, status }, runEvent);
  if (runEvent.time === undefined) return next;
  if (runEvent.event.case === "runRequested") {
    // The same request may be stored again once the broker has forgotten its id; the run is the first one's.
    if (run.requestedAt !== undefined) return run;
    return { ...next, requestedAt: runEvent.time, traceId: originTraceparent.split("-")[1] ?? "" };
  }
  return hasEnded(next) && !hasEnded(run) ? { ...next, finishedAt: runEvent.time } : next;
}

/** What has ended stays ended, whatever arrives late; but a cancellation that is late itself does not undo that a model went live. */
function statusAfter(run: Run, { event }: RunEvent, changes: Partial<Run>): RunStatus {
  const tooLate = run.status === RunStatus.CANCELLED && event.case === "modelPromoted";
  return hasEnded(run) && !tooLate ? run.status : (changes.status ?? run.status);
}

/** What an event says about its run. */
function changesBy({ event }: RunEvent): Partial<Run> {
  switch (event.case) {
    case "runRequested":
      return { ...(event.value.spec && { spec: event.value.spec }) };
    case "runCancelled":
      return { status: RunStatus.CANCELLED };
    case "runFailed":
      return { status: RunStatus.FAILED, failure: event.value };
    case "datasetPrepared":
      return { status: RunStatus.RUNNING, ...(event.value.dataset && { dataset: event.value.dataset }) };
    case "trainingEpochCompleted":
      return { status: RunStatus.RUNNING, ...(event.value.metrics && { lastEpoch: event.value.metrics }) };
    case "modelTrained": {
      const { model: { name = "", version = 0 } = {}, summary } = event.value;
      return {
        status: RunStatus.RUNNING,
        modelName: name,
        modelVersion: version,
        ...(summary && { training: summary }),
      };
    }
    case "modelEvaluated":
      return { status: RunStatus.RUNNING, ...(event.value.report && { evaluation: event.value.report }) };
    case "modelPromoted":
    case "modelRejected":
      // The decision ends the run. Which prediction services answer with the model, and when, is theirs to say.
      return { status: RunStatus.SUCCEEDED, ...(event.value.decision && { decision: event.value.decision }) };
    case "modelDeployed":
    case "modelDeploymentFailed":
      return {};
    default:
      return { status: RunStatus.RUNNING };
  }
}

/** The services in whose hands a run is, one after another. */
const stageNames: readonly string[] = ["ingestion", "training", "evaluation", "prediction"];
/** Events with which a stage's part in a run ends. */
const stageEnds: readonly RunEvent["event"]["case"][] = [
  "datasetPrepared",
  "modelTrained",
  "modelPromoted",
  "modelRejected",
  "modelDeployed",
  "modelDeploymentFailed",
  "runFailed",
];

function withStageTimes(run: Run, { source, time, event }: RunEvent): Run {
  if (time === undefined || !stageNames.includes(source)) return run;
  const worked = withStage(run, source, time, stageEnds.includes(event.case));
  // The prediction service is at work from the decision on, and says so only when it is done.
  return event.case === "modelPromoted" ? withStage(worked, "prediction", time, false) : worked;
}

function withStage(run: Run, name: string, time: Timestamp, ended: boolean): Run {
  const known = run.stages.find((stage) => stage.name === name);
  const finishedAt = ended ? time : known?.finishedAt;
  const stage = create(RunStageSchema, {
    name,
    startedAt: known?.startedAt ?? time,
    ...(finishedAt === undefined ? {} : { finishedAt }),
  });
  const stages = known ? run.stages.map((other) => (other === known ? stage : other)) : [...run.stages, stage];
  return { ...run, stages };
}

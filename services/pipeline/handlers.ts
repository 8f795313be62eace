import { create } from "@bufbuild/protobuf";
import { RunCancelledSchema, RunRequestedSchema, type RunSpec } from "../../gen/millrace/v1/events_pb.ts";
import type { Run, RunEvent } from "../../gen/millrace/v1/pipeline_pb.ts";
import { TrainingSpecSchema } from "../../gen/millrace/v1/training_pb.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import { followEvents } from "../../lib/bus/follow.ts";
import { eventStream, runFilter } from "../../lib/bus/subjects.ts";
import { AppError } from "../../lib/errors.ts";
import { currentTraceId } from "../../lib/telemetry/spans.ts";
import type { RunIndex } from "./run-index.ts";
import { applyRunEvent, emptyRun, hasEnded, runEventFrom } from "./run-projection.ts";

/** The work of the control plane, as far as runs are concerned. */
export interface Pipeline {
  /** Publishes the request and returns once the run can be read. The same id again is the same run. */
  request(spec: RunSpec, runId?: string): Promise<{ runId: string; traceId: string }>;
  /** RUN_NOT_FOUND if there is none. */
  get(runId: string): Run;
  /** Newest first. */
  list(limit: number): Run[];
  /** The run's events from the beginning, and then as they come, with the run after each; ends when the run has ended. */
  watch(runId: string, onEvent: (event: RunEvent, run: Run) => void, signal: AbortSignal): Promise<void>;
  /** RUN_ENDED if there is nothing left to cancel. */
  cancel(runId: string, reason: string): Promise<void>;
}

export interface PipelineDependencies {
  readonly bus: Bus;
  readonly runs: RunIndex;
}

export function createPipeline({ bus, runs }: PipelineDependencies): Pipeline {
  const get = (runId: string): Run => {
    const run = runs.get(runId);
    if (run !== undefined) return run;
    throw new AppError("RUN_NOT_FOUND", `there is no run ${runId}; ListRuns shows those that there are`, {
      details: { runId },
    });
  };
  return {
    request: async (spec, runId = newRunId()) => {
      const known = runs.get(runId);
      if (known !== undefined) return { runId, traceId: known.traceId };
      await checkTraining(spec);
      const { sequence } = await bus.publish(create(RunRequestedSchema, { spec }), { runId });
      await runs.reached(sequence);
      return { runId, traceId: currentTraceId() ?? "" };
    },
    get,
    list: (limit) => runs.list().slice(0, limit),
    watch: async (runId, onEvent, signal) => {
      get(runId);
      await watchRun(bus, runId, onEvent, signal);
    },
    cancel: async (runId, reason) => {
      if (hasEnded(get(runId))) {
        throw new AppError("RUN_ENDED", `run ${runId} has ended; there is nothing to cancel`, {
          details: { runId },
        });
      }
      const { sequence } = await bus.publish(create(RunCancelledSchema, { reason }), { runId });
      await runs.reached(sequence);
    },
  };
}

/** A misspelt network or hyper-parameter is an error now, not after the data set is prepared. */
async function checkTraining({ training }: RunSpec): Promise<void> {
  // Loaded when it is needed: the networks bring TensorFlow.js along, and the service should answer before that.
  const { configFromSpec } = await import("../../lib/nn/config-from-spec.ts");
  configFromSpec(training ?? create(TrainingSpecSchema));
}

/** Ids that sort by time: milliseconds in base 36, and four random letters against two in the same one. */
function newRunId(): string {
  const random = Math.floor(Math.random() * 36 ** 4)
    .toString(36)
    .padStart(4, "0");
  return `${Date.now().toString(36)}-${random}`;
}

async function watchRun(
  bus: Bus,
  runId: string,
  onEvent: (event: RunEvent, run: Run) => void,
  callerSignal: AbortSignal,
): Promise<void> {
  const enough = new AbortController();
  let run = emptyRun(runId);
  let caughtUp = false;
  // All that is stored is shown, also what came after the end, such as the deployment of the model.
  const stopIfEnded = () => {
    if (caughtUp && hasEnded(run)) enough.abort();
  };
  await followEvents(bus, {
    stream: eventStream,
    filter: runFilter(runId),
    signal: AbortSignal.any([callerSignal, enough.signal]),
    onEvent: (event) => {
      const runEvent = runEventFrom(event);
      if (runEvent === undefined) return;
      run = applyRunEvent(run, runEvent, event);
      onEvent(runEvent, run);
      stopIfEnded();
    },
    onCaughtUp: () => {
      caughtUp = true;
      stopIfEnded();
    },
  });
}

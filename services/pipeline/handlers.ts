import { create } from "@bufbuild/protobuf";
import { RunCancelledSchema, RunRequestedSchema, type RunSpec } from "../../gen/millrace/v1/events_pb.ts";
import { type Run, type RunEvent, RunStatus } from "../../gen/millrace/v1/pipeline_pb.ts";
import { TrainingSpecSchema } from "../../gen/millrace/v1/training_pb.ts";
import { orAborted } from "../../lib/abort.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import { followEvents } from "../../lib/bus/follow.ts";
import { eventStream, runFilter } from "../../lib/bus/subjects.ts";
import { AppError } from "../../lib/errors.ts";
import type { RunIndex } from "./run-index.ts";
import { applyRunEvent, emptyRun, hasEnded, runEventFrom } from "./run-projection.ts";

/**
 * The work of the control plane, as far as runs are concerned. Nothing is answered before the stream has been read: until then a run
 * that is there would be RUN_NOT_FOUND. The signal ends the waiting.
 */
export interface Pipeline {
  /**
   * Publishes the request and returns once the run can be read. The same id again is the same run; undefined is a new one. DEADLINE_EXCEEDED,
   * with the run's id, if it is stored but does not come back.
   */
  request(
    spec: RunSpec,
    runId: string | undefined,
    signal: AbortSignal,
  ): Promise<{ readonly runId: string; readonly traceId: string }>;
  /** RUN_NOT_FOUND if there is none. */
  get(runId: string, signal: AbortSignal): Promise<Run>;
  /** Newest first. */
  list(limit: number, signal: AbortSignal): Promise<Run[]>;
  /**
   * The run's events from the beginning, and then as they come, with the run after each; ends when the run has ended. RUN_NOT_FOUND if none
   * of its events is stored any more.
   */
  watch(runId: string, onEvent: OnRunEvent, signal: AbortSignal): Promise<void>;
  /** RUN_ENDED if there is nothing left to cancel. */
  cancel(runId: string, reason: string, signal: AbortSignal): Promise<void>;
}

type OnRunEvent = (event: RunEvent, run: Run) => void;

export interface PipelineDependencies {
  readonly bus: Bus;
  readonly runs: RunIndex;
}

export function createPipeline({ bus, runs }: PipelineDependencies): Pipeline {
  const replayed = (signal: AbortSignal) => orAborted(runs.ready, signal);
  const get = async (runId: string, signal: AbortSignal): Promise<Run> => {
    await replayed(signal);
    const run = runs.get(runId);
    if (run !== undefined) return run;
    throw new AppError("RUN_NOT_FOUND", `there is no run ${runId}; ListRuns shows those that there are`, {
      details: { runId },
    });
  };
  return {
    request: async (spec, requestedId, signal) => {
      await replayed(signal);
      const runId = requestedId ?? newRunId();
      const known = runs.get(runId);
      if (known !== undefined) return { runId, traceId: known.traceId };
      await checkTraining(spec);
      const { sequence } = await bus.publish(create(RunRequestedSchema, { spec }), { runId, signal });
      await runs.reached({ runId, sequence }, signal);
      // Of two requests with one id at the same time the first makes the run, and its trace is the run's.
      return { runId, traceId: runs.get(runId)?.traceId ?? "" };
    },
    get,
    list: async (limit, signal) => {
      await replayed(signal);
      return runs.list().slice(0, limit);
    },
    watch: async (runId, onEvent, signal) => {
      const isOver = hasEnded(await get(runId, signal));
      await watchRun({ bus, runId, isOver, onEvent, signal });
    },
    cancel: async (runId, reason, signal) => {
      if (hasEnded(await get(runId, signal))) throw nothingToCancel(runId);
      const { sequence } = await bus.publish(create(RunCancelledSchema, { reason }), { runId, signal });
      await runs.reached({ runId, sequence }, signal);
      // It may have ended before the cancellation was stored.
      if (runs.get(runId)?.status !== RunStatus.CANCELLED) throw nothingToCancel(runId);
    },
  };
}

function nothingToCancel(runId: string): AppError {
  return new AppError("RUN_ENDED", `run ${runId} has ended; there is nothing to cancel`, { details: { runId } });
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

interface Watching {
  readonly bus: Bus;
  readonly runId: string;
  /** Whether the run had ended before: the event that says so may be gone, while others are still there. */
  readonly isOver: boolean;
  readonly onEvent: OnRunEvent;
  readonly signal: AbortSignal;
}

async function watchRun({ bus, runId, isOver, onEvent, signal: callerSignal }: Watching): Promise<void> {
  const enough = new AbortController();
  let run: Run | undefined;
  let caughtUp = false;
  // All that is stored is shown, also what came after the end, such as the deployment of the model.
  const stopIfEnded = () => {
    if (caughtUp && (isOver || run === undefined || hasEnded(run))) enough.abort();
  };
  await followEvents(bus, {
    stream: eventStream,
    filter: runFilter(runId),
    signal: AbortSignal.any([callerSignal, enough.signal]),
    onEvent: (event) => {
      const runEvent = runEventFrom(event);
      if (runEvent === undefined) return;
      run = applyRunEvent(run ?? emptyRun(runId), runEvent, event);
      onEvent(runEvent, run);
      stopIfEnded();
    },
    onCaughtUp: () => {
      caughtUp = true;
      stopIfEnded();
    },
    onRestart: () => {
      run = undefined;
      enough.abort();
    },
  });
  if (run === undefined && enough.signal.aborted) {
    const message = `no event of run ${runId} is stored any more; there is nothing to watch`;
    throw new AppError("RUN_NOT_FOUND", message, { details: { runId } });
  }
}

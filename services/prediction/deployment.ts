import { create, type Message } from "@bufbuild/protobuf";
import { type Span, trace } from "@opentelemetry/api";
import {
  type ModelAliasMoved,
  ModelDeployedSchema,
  ModelDeploymentFailedSchema,
} from "../../gen/millrace/v1/events_pb.ts";
import type { ModelVersion } from "../../gen/millrace/v1/model_pb.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import type { ReceivedEvent } from "../../lib/bus/cloud-event.ts";
import { eventTypeOf } from "../../lib/bus/event-types.ts";
import { followEvents } from "../../lib/bus/follow.ts";
import { eventStream, eventSubject, registryStream, registrySubject } from "../../lib/bus/subjects.ts";
import { contextFromHeaders } from "../../lib/bus/tracing.ts";
import { AppError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { applyChange, championAlias, championOf, emptyModelLog, type ModelLog } from "../../lib/registry/model-log.ts";
import { withRetries } from "../../lib/retry.ts";
import { failSpan, withSpan } from "../../lib/telemetry/spans.ts";
import type { BatchSettings } from "./batcher.ts";
import { type LoadedModel, loadModel } from "./serving.ts";

export interface DeploymentOptions {
  readonly bus: Bus;
  readonly artifacts: ArtifactStore;
  readonly modelName: string;
  /** Which process of the service this is. */
  readonly instanceId: string;
  /** How batches are formed until something else is said. */
  readonly batching: BatchSettings;
  /** Told false when the model that answers has died, and true when there is one again. */
  readonly onServing: (serving: boolean) => void;
}

/** The model that answers, kept equal to the registry's champion. */
export interface Deployment extends AsyncDisposable {
  readonly current: () => LoadedModel | undefined;
  /** How batches are formed, by the model that answers and by every later one. */
  batching: BatchSettings;
  /** Resolves when the registry was read and its champion, if it has one, is live. */
  readonly ready: Promise<void>;
}

/**
 * Follows the registry's log: at the start its replay gives the champion, later each move of the alias gives the next.
 * A model goes live whole, loaded and warmed up, or not at all; the one before answers until then.
 */
export function followChampion(options: DeploymentOptions): Deployment {
  const { bus, modelName } = options;
  const stopping = new AbortController();
  const { signal } = stopping;
  const { batching } = options;
  const state: DeploymentState = { log: emptyModelLog(modelName), move: undefined, current: undefined, batching };
  // Two queues: following waits for neither, and a broker that is away delays what is told, not what is served.
  const deployments = createQueue(bus.logger, signal);
  const announcements = createQueue(bus.logger, signal);
  const deployLatest = () =>
    deployments.add(async () => {
      const outcome = await deploy(options, state, { signal, onLost });
      if (outcome !== undefined) void announcements.add(() => announce(bus, outcome, signal));
    });
  /** The same model is loaded anew; until then nobody should call here. */
  const onLost = (model: LoadedModel, error: AppError) => {
    if (state.current !== model || signal.aborted) return;
    state.current = undefined;
    bus.logger.error({ event: "model.lost", error }, `${nameOf(model.version)} can answer no more and is loaded again`);
    options.onServing(false);
    void deployLatest();
  };
  let caughtUp = false;
  let ready = () => {};
  const whenReady = new Promise<void>((resolve) => {
    ready = resolve;
  });
  const following = followEvents(bus, {
    stream: registryStream,
    filter: registrySubject(modelName),
    onEvent: (event) => {
      state.log = applyChange(state.log, event);
      if (!movesChampion(event)) return;
      state.move = event;
      if (caughtUp) void deployLatest();
    },
    onCaughtUp: () => {
      caughtUp = true;
      void deployLatest().then(ready);
    },
    signal,
  });
  return {
    current: () => state.current,
    get batching() {
      return state.batching;
    },
    set batching(settings) {
      state.current?.setBatching(settings);
      state.batching = settings;
    },
    ready: whenReady,
    [Symbol.asyncDispose]: async () => {
      stopping.abort(new AppError("SHUTTING_DOWN", "the prediction service is stopping"));
      await Promise.all([following, deployments.settled(), announcements.settled()]);
      await state.current?.[Symbol.asyncDispose]();
    },
  };
}

/** Work that is done one piece after another. A piece that fails is logged, unless the service is stopping. */
function createQueue(logger: Logger, signal: AbortSignal) {
  let last: Promise<void> = Promise.resolve();
  return {
    add: (work: () => Promise<void>): Promise<void> => {
      last = last.then(work).catch((error: unknown) => {
        if (!signal.aborted) logger.error({ event: "deployment.incomplete", error }, "a deployment was not completed");
      });
      return last;
    },
    settled: () => last,
  };
}

function movesChampion({ message }: ReceivedEvent): boolean {
  return (
    message.$typeName === "millrace.v1.ModelAliasMoved" && (message as ModelAliasMoved).move?.alias === championAlias
  );
}

/** A store or a broker that is away for a moment must not cost a deployment. */
const loadRetryPausesMs = [500, 2_000, 8_000];

interface DeploymentState {
  log: ModelLog;
  /** The change that made the champion what it is. */
  move: ReceivedEvent | undefined;
  current: LoadedModel | undefined;
  batching: BatchSettings;
}

/** What there is to tell, and the change that caused it. */
interface Outcome {
  readonly cause: ReceivedEvent;
  readonly event: Message;
}

interface DeploymentWatch {
  readonly signal: AbortSignal;
  /** Called if a model that went live dies. */
  readonly onLost: (model: LoadedModel, error: AppError) => void;
}

/** Puts the champion into service, unless it is. Returns what the run that trained it shall hear, unless it has heard. */
async function deploy(
  options: DeploymentOptions,
  state: DeploymentState,
  { signal, onLost }: DeploymentWatch,
): Promise<Outcome | undefined> {
  const { log, move } = state;
  const champion = championOf(log);
  if (champion === undefined || move === undefined || isLive(champion, state)) return undefined;
  const attributes = {
    "millrace.model.name": champion.name,
    "millrace.model.version": champion.version,
    "millrace.run.id": move.correlationId,
  };
  // A service that starts later deploys the same champion again: that is no part of the run, and only linked to it.
  const told = await toldBefore(options.bus, move, signal);
  const context = contextFromHeaders(move.headers);
  const run = trace.getSpanContext(context);
  const settings = told
    ? { attributes, links: run === undefined ? [] : [{ context: run }] }
    : { attributes, parent: context };
  return withSpan("deploy model", settings, async (span) => {
    const startedMs = performance.now();
    const error = await goLive(options, state, { champion, signal, onLost, span: told ? undefined : span });
    if (signal.aborted) return undefined;
    if (error !== undefined) failSpan(span, error);
    if (told) return undefined;
    const durationSeconds = (performance.now() - startedMs) / 1000;
    const identity = { modelName: champion.name, version: champion.version, instanceId: options.instanceId };
    const event =
      error === undefined
        ? create(ModelDeployedSchema, { ...identity, durationSeconds })
        : create(ModelDeploymentFailedSchema, { ...identity, code: error.code, message: error.message });
    return { cause: move, event };
  });
}

/** By number as well: the same training, asked for twice, gives two versions of one digest. */
function isLive({ version, digest }: ModelVersion, { current }: DeploymentState): boolean {
  return current?.version.version === version && current.version.digest === digest;
}

interface Candidate extends DeploymentWatch {
  readonly champion: ModelVersion;
  /** Under which the model's first answer shall appear. */
  readonly span: Span | undefined;
}

const nameOf = ({ name, version }: ModelVersion): string => `model ${name} version ${version}`;

/** Loads the model and switches to it. What went wrong is returned: then the one before answers on. */
async function goLive(
  { bus, artifacts, onServing }: DeploymentOptions,
  state: DeploymentState,
  { champion, signal, onLost, span }: Candidate,
): Promise<AppError | undefined> {
  const logger = bus.logger.child({ model: champion.name, version: champion.version });
  const name = nameOf(champion);
  try {
    const next = await withRetries(loadRetryPausesMs, signal, () =>
      loadModel(champion, { artifacts, batching: state.batching }),
    );
    // They may have changed while it was loaded.
    next.setBatching(state.batching);
    next.firstAnswerParent = span?.spanContext();
    const previous = state.current;
    state.current = next;
    void next.lost.then((error) => onLost(next, error));
    onServing(true);
    logger.info({ event: "model.deployed" }, `${name} is live`);
    void retire(previous, logger);
    return undefined;
  } catch (thrown) {
    const error = AppError.from(thrown);
    if (signal.aborted) return error;
    logger.error(
      { event: "model.deployment_failed", error },
      `${name} could not go live; what answered before answers on`,
    );
    return error;
  }
}

/** Lets go of a model once its last answer is given; nobody waits for that. */
async function retire(model: LoadedModel | undefined, logger: Logger): Promise<void> {
  try {
    await model?.[Symbol.asyncDispose]();
  } catch (error) {
    logger.warn({ event: "model.retirement_failed", error }, "a model that answers no more could not be unloaded");
  }
}

/** Tells the run that trained the model. A change that a person made belongs to no run, and nobody is told. */
async function announce(bus: Bus, { cause, event }: Outcome, signal: AbortSignal): Promise<void> {
  const runId = cause.correlationId;
  if (runId !== "") await bus.publish(event, { runId, cause, patient: true, signal });
}

/** Whether the run has heard of this deployment, from this instance or another. */
async function toldBefore(
  bus: Bus,
  { id, correlationId: runId }: ReceivedEvent,
  signal: AbortSignal,
): Promise<boolean> {
  if (runId === "") return true;
  const subject = eventSubject(runId, eventTypeOf(ModelDeployedSchema).options.name);
  const last = await bus.lastEvent(eventStream, subject, { patient: true, signal });
  return last?.causationId === id;
}

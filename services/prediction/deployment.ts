import { create, type Message } from "@bufbuild/protobuf";
import type { Span } from "@opentelemetry/api";
import { ModelDeployedSchema, ModelDeploymentFailedSchema } from "../../gen/millrace/v1/events_pb.ts";
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
import { applyChange, championOf, emptyModelLog, type ModelLog } from "../../lib/registry/model-log.ts";
import { withRetries } from "../../lib/retry.ts";
import { failSpan, withSpan } from "../../lib/telemetry/spans.ts";
import { type LoadedModel, loadModel } from "./serving.ts";

export interface DeploymentOptions {
  readonly bus: Bus;
  readonly artifacts: ArtifactStore;
  readonly modelName: string;
  /** Which process of the service this is. */
  readonly instanceId: string;
}

/** The model that answers, kept equal to the registry's champion. */
export interface Deployment extends AsyncDisposable {
  readonly current: () => LoadedModel | undefined;
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
  const state: DeploymentState = { log: emptyModelLog(modelName), lastMove: undefined, current: undefined };
  let caughtUp = false;
  let ready = () => {};
  const whenReady = new Promise<void>((resolve) => {
    ready = resolve;
  });
  // One after another: a slow deployment must not end after a later one.
  let deployed: Promise<void> = Promise.resolve();
  const deployLatest = () => {
    deployed = deployed.catch(() => undefined).then(() => deploy(options, state, stopping.signal));
    return deployed;
  };
  const following = followEvents(bus, {
    stream: registryStream,
    filter: registrySubject(modelName),
    onEvent: async (event) => {
      state.log = applyChange(state.log, event);
      if (event.message.$typeName !== "millrace.v1.ModelAliasMoved") return;
      state.lastMove = event;
      if (caughtUp) await deployLatest();
    },
    onCaughtUp: () => {
      caughtUp = true;
      deployLatest().then(ready, (error: unknown) => {
        if (!stopping.signal.aborted)
          bus.logger.error({ event: "model.announcement_failed", error }, "a deployment could not be told");
        ready();
      });
    },
    signal: stopping.signal,
  });
  return {
    current: () => state.current,
    ready: whenReady,
    [Symbol.asyncDispose]: async () => {
      stopping.abort();
      await following;
      await deployed.catch(() => undefined); // told above, or by the follower
      await state.current?.[Symbol.asyncDispose]();
    },
  };
}

/** A store or a broker that is away for a moment must not cost a deployment. */
const loadRetryPausesMs = [500, 2_000, 8_000];

interface DeploymentState {
  log: ModelLog;
  /** The change that made the champion what it is. */
  lastMove: ReceivedEvent | undefined;
  current: LoadedModel | undefined;
}

async function deploy(options: DeploymentOptions, state: DeploymentState, signal: AbortSignal): Promise<void> {
  const { log, lastMove } = state;
  const champion = championOf(log);
  if (champion === undefined || lastMove === undefined || champion.digest === state.current?.version.digest) return;
  const attributes = {
    "millrace.model.name": champion.name,
    "millrace.model.version": champion.version,
    "millrace.run.id": lastMove.correlationId,
  };
  const settings = { attributes, parent: contextFromHeaders(lastMove.headers) };
  await withSpan("deploy model", settings, async (span) => {
    const startedMs = performance.now();
    const outcome = await goLive(options, state, { champion, signal, span });
    if (signal.aborted) return;
    const durationSeconds = (performance.now() - startedMs) / 1000;
    const identity = { modelName: champion.name, version: champion.version, instanceId: options.instanceId };
    const event =
      outcome === undefined
        ? create(ModelDeployedSchema, { ...identity, durationSeconds })
        : create(ModelDeploymentFailedSchema, { ...identity, code: outcome.code, message: outcome.message });
    await announce(options.bus, lastMove, event, signal);
  });
}

interface Candidate {
  readonly champion: ModelVersion;
  readonly signal: AbortSignal;
  readonly span: Span;
}

/** Loads the model and switches to it. What went wrong is returned: then the one before answers on. */
async function goLive(
  { bus, artifacts }: DeploymentOptions,
  state: DeploymentState,
  { champion, signal, span }: Candidate,
): Promise<AppError | undefined> {
  const logger = bus.logger.child({ model: champion.name, version: champion.version });
  const name = `model ${champion.name} version ${champion.version}`;
  try {
    const next = await withRetries(loadRetryPausesMs, signal, () => loadModel(champion, artifacts));
    next.firstAnswerParent = span.spanContext();
    const previous = state.current;
    state.current = next;
    logger.info({ event: "model.deployed" }, `${name} is live`);
    void retire(previous, logger);
    return undefined;
  } catch (thrown) {
    const error = AppError.from(thrown);
    if (signal.aborted) return error;
    failSpan(span, error);
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

/** Tells the run that trained the model, once: a service that starts later deploys the same champion again and says nothing. */
async function announce(bus: Bus, cause: ReceivedEvent, message: Message, signal: AbortSignal): Promise<void> {
  const runId = cause.correlationId;
  if (runId === "") return;
  const subject = eventSubject(runId, eventTypeOf(message).options.name);
  const told = await bus.lastEvent(eventStream, subject);
  if (told?.causationId !== cause.id) await bus.publish(message, { runId, cause, patient: true, signal });
}

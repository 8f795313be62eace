/**
 * Which version answers, kept equal to the registry's aliases: the champion, a canary that answers a share of the requests, and a shadow
 * that gets copies. A version goes live whole, loaded and warmed up, or not at all; the one before answers until then.
 */
import { create } from "@bufbuild/protobuf";
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
import { followEvents } from "../../lib/bus/follow.ts";
import { registryStream, registrySubject } from "../../lib/bus/subjects.ts";
import { contextFromHeaders } from "../../lib/bus/tracing.ts";
import { type Changes, createChanges } from "../../lib/changes.ts";
import { AppError } from "../../lib/errors.ts";
import { createInferenceThreads } from "../../lib/nn/inference.ts";
import {
  applyChange,
  canaryAlias,
  championAlias,
  emptyModelLog,
  type ModelLog,
  shadowAlias,
  versionName,
} from "../../lib/registry/model-log.ts";
import { withRetries } from "../../lib/retry.ts";
import { failSpan, withSpan } from "../../lib/telemetry/spans.ts";
import { type Announcements, createAnnouncements } from "./announcements.ts";
import type { BatchSettings } from "./batch-settings.ts";
import { createModelCache, type HeldModel, type ModelCache } from "./model-cache.ts";
import { type LoadedModel, loadModel } from "./serving.ts";
import { createWorkQueue } from "./work-queue.ts";

export interface DeploymentOptions {
  readonly bus: Bus;
  readonly artifacts: ArtifactStore;
  readonly modelName: string;
  /** Which process of the service this is. */
  readonly instanceId: string;
  /** How batches are formed until something else is said. */
  readonly batching: BatchSettings;
  /** Most memory in bytes of versions that no alias names. */
  readonly cacheBytes: number;
  /** Told false when there should be a champion and none can answer, and true when one can again. */
  readonly onServing: (serving: boolean) => void;
  /** After which a version that could not be loaded is tried again, if trying can help. Default 30,000. */
  readonly redeploymentPauseMs?: number;
}

/** What the service answers with. */
export interface Deployment extends AsyncDisposable {
  /** The registry's log of the model, as far as it was read. */
  readonly log: ModelLog;
  /** The version that answers under an alias: one that is in memory, whatever the registry says meanwhile. */
  live(alias: string): LoadedModel | undefined;
  readonly models: ModelCache;
  /** How batches are formed, by every model that is in memory and by every later one. */
  batching: BatchSettings;
  /** Of the log, of what is live, and of what is in memory. */
  readonly changes: Pick<Changes, "next">;
  /** Resolves when the registry was read and its champion, if it has one, is live or could not be loaded. */
  readonly ready: Promise<void>;
}

/** Those whose versions are in memory all the time. The champion first: the others are worth little without it. */
const servedAliases = [championAlias, canaryAlias, shadowAlias] as const;

/** Follows the registry's log: at the start its replay gives the aliases, later each move of one gives the next version. */
export function followAliases(options: DeploymentOptions): Deployment {
  const { bus, modelName, artifacts, redeploymentPauseMs = 30_000 } = options;
  const { logger } = bus;
  const stopping = new AbortController();
  const { signal } = stopping;
  const changes = createChanges();
  const state: DeploymentState = {
    log: emptyModelLog(modelName),
    move: undefined,
    live: new Map(),
  };
  let { batching } = options;
  const threads = createInferenceThreads();
  const models = createModelCache({
    load: async (version, admit) => {
      const model = await loadModel(version, { artifacts, threads, batching, admit });
      // It may have changed while the model was loaded.
      model.setBatching(batching);
      return model;
    },
    budgetBytes: options.cacheBytes,
    logger,
    onChange: changes.notify,
  });
  // Following waits for neither.
  const deployments = createWorkQueue("deployment.incomplete", logger, signal);
  const announcements = createAnnouncements(bus, signal);
  /** The same version is loaded anew, also where another is wanted that could not be. */
  const onLost = (alias: string, { model }: HeldModel, error: AppError) => {
    if (state.live.get(alias)?.model !== model || signal.aborted) return;
    state.live.delete(alias);
    logger.error(
      { event: "model.lost", error },
      `${versionName(model.version)} can answer no more and is loaded again`,
    );
    if (alias === championAlias) options.onServing(false);
    void deployments.add(async () => void (await goLive(deploying, alias, model.version)));
    void deployLatest();
  };
  const deploying: Deploying = { options, state, models, announcements, signal, onLost };
  let again: NodeJS.Timeout | undefined;
  const deployLatest = (): Promise<void> =>
    deployments.add(async () => {
      clearTimeout(again);
      let isComplete = false;
      try {
        isComplete = await deployAliases(deploying);
      } finally {
        changes.notify();
        if (!state.live.has(championAlias) && wanted(state, championAlias) !== undefined) options.onServing(false);
        // Nothing that happens may make it complete: the store may be back by then.
        if (!isComplete && !signal.aborted) again = setTimeout(() => void deployLatest(), redeploymentPauseMs);
      }
    });
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
      changes.notify();
      const alias = movedAlias(event);
      if (alias === championAlias) state.move = event;
      if (caughtUp && servedAliases.some((served) => served === alias)) void deployLatest();
    },
    onCaughtUp: () => {
      caughtUp = true;
      void deployLatest().then(ready);
    },
    // What answers goes on, until the registry that was made anew names another.
    onRestart: () => {
      state.log = emptyModelLog(modelName);
      state.move = undefined;
    },
    signal,
  });
  return {
    get log() {
      return state.log;
    },
    live: (alias) => state.live.get(alias)?.model,
    models,
    get batching() {
      return batching;
    },
    set batching(settings) {
      for (const model of models.loaded) model.setBatching(settings);
      batching = settings;
    },
    changes,
    ready: whenReady,
    [Symbol.asyncDispose]: async () => {
      stopping.abort(new AppError("SHUTTING_DOWN", "the prediction service is stopping"));
      clearTimeout(again);
      await Promise.all([following, deployments.settled(), announcements.settled()]);
      for (const held of state.live.values()) held[Symbol.dispose]();
      state.live.clear();
      await models[Symbol.asyncDispose]();
      await threads[Symbol.asyncDispose]();
    },
  };
}

function movedAlias({ message }: ReceivedEvent): string | undefined {
  return message.$typeName === "millrace.v1.ModelAliasMoved" ? (message as ModelAliasMoved).move?.alias : undefined;
}

/** A store or a broker that is away for a moment must not cost a deployment. */
const loadRetryPausesMs = [500, 2_000, 8_000];

interface DeploymentState {
  log: ModelLog;
  /** The change that made the champion what it is. */
  move: ReceivedEvent | undefined;
  /** By alias. */
  readonly live: Map<string, HeldModel>;
}

interface Deploying {
  readonly options: DeploymentOptions;
  readonly state: DeploymentState;
  readonly models: ModelCache;
  readonly announcements: Announcements;
  readonly signal: AbortSignal;
  /** Called if a model that is live dies. */
  readonly onLost: (alias: string, held: HeldModel, error: AppError) => void;
}

/** Makes what answers what the registry says. Returns false if some of it could not be loaded, and may be later. */
async function deployAliases(deploying: Deploying): Promise<boolean> {
  const { state } = deploying;
  let isComplete = true;
  for (const alias of servedAliases) {
    const version = wanted(state, alias);
    if (version !== undefined && isLive(state, alias, version)) continue;
    const deploy = alias === championAlias ? deployChampion : goLive;
    const error = version && (await deploy(deploying, alias, version));
    if (error?.retryable) isComplete = false;
    // One beside the champion that cannot be loaded leaves its share to it. A champion stays until another one is live.
    if (alias !== championAlias && (version === undefined || error !== undefined)) withdraw(deploying, alias);
  }
  return isComplete && (wanted(state, championAlias) === undefined || state.live.has(championAlias));
}

/** Puts the champion into service, and tells the run that trained it. */
async function deployChampion(
  deploying: Deploying,
  alias: string,
  champion: ModelVersion,
): Promise<AppError | undefined> {
  const { options, state, announcements, signal } = deploying;
  const { move } = state;
  if (move === undefined) return undefined;
  const attributes = {
    "millrace.model.name": champion.name,
    "millrace.model.version": champion.version,
    "millrace.run.id": move.correlationId,
  };
  // A service that starts later deploys the same champion again: that is no part of the run, and only linked to it.
  const told = await announcements.deploymentTold(move);
  const context = contextFromHeaders(move.headers);
  const run = trace.getSpanContext(context);
  const settings = told
    ? { attributes, links: run === undefined ? [] : [{ context: run }] }
    : { attributes, parent: context };
  return withSpan("deploy model", settings, async (span) => {
    const startedMs = performance.now();
    const error = await goLive(deploying, alias, champion, told ? undefined : span);
    if (signal.aborted) return error;
    if (error !== undefined) failSpan(span, error);
    const durationSeconds = (performance.now() - startedMs) / 1000;
    const identity = { modelName: champion.name, version: champion.version, instanceId: options.instanceId };
    announcements.tell(
      move,
      error === undefined
        ? create(ModelDeployedSchema, { ...identity, durationSeconds })
        : create(ModelDeploymentFailedSchema, { ...identity, code: error.code, message: error.message }),
    );
    return error;
  });
}

function withdraw({ state, options }: Deploying, alias: string): void {
  const held = state.live.get(alias);
  if (held === undefined) return;
  state.live.delete(alias);
  held[Symbol.dispose]();
  options.bus.logger.info(
    { event: "model.withdrawn", alias },
    `${versionName(held.model.version)} is no ${alias} any more`,
  );
}

function wanted({ log }: DeploymentState, alias: string): ModelVersion | undefined {
  return log.versions.get(log.aliases.get(alias) ?? 0);
}

/** By number as well: the same training, asked for twice, gives two versions of one digest. */
function isLive({ live }: DeploymentState, alias: string, { version, digest }: ModelVersion): boolean {
  const current = live.get(alias)?.model.version;
  return current?.version === version && current.digest === digest;
}

/**
 * Loads a version and switches an alias to it. What went wrong is returned: then the one before answers on. Its first answer appears
 * under `span`.
 */
async function goLive(
  { options, state, models, signal, onLost }: Deploying,
  alias: string,
  version: ModelVersion,
  span?: Span,
): Promise<AppError | undefined> {
  const logger = options.bus.logger.child({ model: version.name, version: version.version, alias });
  const name = versionName(version);
  try {
    const next = await withRetries(loadRetryPausesMs, signal, async () => models.hold(version, { always: true }));
    next.model.firstAnswerParent = span?.spanContext();
    const previous = state.live.get(alias);
    state.live.set(alias, next);
    if (alias === championAlias) options.onServing(true);
    void next.model.lost.then((error) => onLost(alias, next, error));
    logger.info({ event: "model.deployed" }, `${name} is live as ${alias}`);
    // Answers under way hold it themselves; after them it stays as long as there is room, in case it is wanted back.
    previous?.[Symbol.dispose]();
    return undefined;
  } catch (thrown) {
    const error = AppError.from(thrown);
    if (signal.aborted) return error;
    const after = alias === championAlias ? "what answered before answers on" : "the champion answers for it";
    logger.error({ event: "model.deployment_failed", error }, `${name} could not go live as ${alias}; ${after}`);
    return error;
  }
}

/**
 * Which version answers, kept equal to the registry's aliases: the champion, a canary that answers a share of the requests, and a shadow
 * that gets copies. A version goes live whole, loaded and warmed up, or not at all; the one before answers until then.
 */
import type { ModelAliasMoved } from "../../gen/millrace/v1/events_pb.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import type { ReceivedEvent } from "../../lib/bus/cloud-event.ts";
import { followEvents } from "../../lib/bus/follow.ts";
import { registryStream, registrySubject } from "../../lib/bus/subjects.ts";
import { type Changes, createChanges } from "../../lib/changes.ts";
import { AppError } from "../../lib/errors.ts";
import { createInferenceThreads } from "../../lib/nn/inference.ts";
import { applyChange, championAlias, emptyModelLog, type ModelLog, versionName } from "../../lib/registry/model-log.ts";
import { createAnnouncements } from "./announcements.ts";
import type { BatchSettings } from "./batch-settings.ts";
import {
  type Deploying,
  type DeploymentState,
  deployAliases,
  goLive,
  servedAliases,
  wanted,
} from "./deploy-aliases.ts";
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

/** Follows the registry's log: at the start its replay gives the aliases, later each move of one gives the next version. */
export function followAliases(options: DeploymentOptions): Deployment {
  const { bus, modelName, artifacts, instanceId, onServing, redeploymentPauseMs = 30_000 } = options;
  const { logger } = bus;
  const stopping = new AbortController();
  const { signal } = stopping;
  const changes = createChanges();
  const state: DeploymentState = {
    log: emptyModelLog(modelName),
    moves: new Map(),
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
    if (alias === championAlias) onServing(false);
    void deployments.add(async () => void (await goLive(deploying, alias, model.version)));
    void deployLatest();
  };
  const deploying: Deploying = { bus, instanceId, onServing, state, models, announcements, signal, onLost };
  let again: NodeJS.Timeout | undefined;
  const deployLatest = (): Promise<void> =>
    deployments.add(async () => {
      clearTimeout(again);
      let isComplete = false;
      try {
        isComplete = await deployAliases(deploying);
      } finally {
        changes.notify();
        if (!state.live.has(championAlias) && wanted(state, championAlias) !== undefined) onServing(false);
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
      if (alias !== undefined) state.moves.set(alias, event);
      if (caughtUp && servedAliases.some((served) => served === alias)) void deployLatest();
    },
    onCaughtUp: () => {
      caughtUp = true;
      void deployLatest().then(ready);
    },
    // What answers goes on, until the registry that was made anew names another.
    onRestart: () => {
      state.log = emptyModelLog(modelName);
      state.moves.clear();
      changes.notify();
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

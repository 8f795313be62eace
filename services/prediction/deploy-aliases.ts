/** Putting versions into service, and taking them out: what answers becomes what the registry's aliases say. */
import { create } from "@bufbuild/protobuf";
import { type Span, trace } from "@opentelemetry/api";
import {
  ModelDeployedSchema,
  ModelDeploymentFailedSchema,
  PredictionLoadFailedSchema,
} from "../../gen/millrace/v1/events_pb.ts";
import type { ModelVersion } from "../../gen/millrace/v1/model_pb.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import type { ReceivedEvent } from "../../lib/bus/cloud-event.ts";
import { contextFromHeaders } from "../../lib/bus/tracing.ts";
import { AppError } from "../../lib/errors.ts";
import { canaryAlias, championAlias, type ModelLog, shadowAlias, versionName } from "../../lib/registry/model-log.ts";
import { withRetries } from "../../lib/retry.ts";
import { failSpan, withSpan } from "../../lib/telemetry/spans.ts";
import type { Announcements } from "./announcements.ts";
import type { HeldModel, ModelCache } from "./model-cache.ts";

/** Those whose versions are in memory all the time. The champion first: the others are worth little without it. */
export const servedAliases = [championAlias, canaryAlias, shadowAlias] as const;

/**
 * A store or a broker that is away for a moment must not cost a champion its deployment. Those beside it are tried again later, with all that
 * is missing: nothing waits behind them.
 */
const loadRetryPausesMs = [500, 2_000, 8_000];

/** What is known and what is live. */
export interface DeploymentState {
  log: ModelLog;
  /** By alias, the change that made it what it is. */
  readonly moves: Map<string, ReceivedEvent>;
  /** By alias. */
  readonly live: Map<string, HeldModel>;
}

export interface Deploying {
  readonly bus: Bus;
  /** Which process of the service this is. */
  readonly instanceId: string;
  /** Told false when there should be a champion and none can answer, and true when one can again. */
  readonly onServing: (serving: boolean) => void;
  readonly state: DeploymentState;
  readonly models: ModelCache;
  readonly announcements: Announcements;
  readonly signal: AbortSignal;
  /** Called if a model that is live dies. */
  readonly onLost: (alias: string, held: HeldModel, error: AppError) => void;
}

/** Makes what answers what the registry says. Returns false if some of it could not be loaded, and may be later. */
export async function deployAliases(deploying: Deploying): Promise<boolean> {
  const { state } = deploying;
  let isComplete = true;
  for (const alias of servedAliases) {
    const version = wanted(state, alias);
    if (version === undefined) {
      if (alias !== championAlias) withdraw(deploying, alias);
      continue;
    }
    if (isLive(state, alias, version)) continue;
    const deploy = alias === championAlias ? deployChampion : goLive;
    const error = await deploy(deploying, alias, version);
    if (error === undefined) continue;
    tellLoadFailed(deploying, alias, version, error);
    if (error.retryable) isComplete = false;
    // One beside the champion that cannot be loaded leaves its share to it. A champion stays until another one is live.
    if (alias !== championAlias) withdraw(deploying, alias);
  }
  return isComplete && (wanted(state, championAlias) === undefined || state.live.has(championAlias));
}

/** Puts the champion into service, and tells the run that trained it. */
async function deployChampion(
  deploying: Deploying,
  alias: string,
  champion: ModelVersion,
): Promise<AppError | undefined> {
  const { instanceId, state, announcements, signal } = deploying;
  const move = state.moves.get(alias);
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
    const identity = { modelName: champion.name, version: champion.version, instanceId };
    announcements.tell(
      move,
      error === undefined
        ? create(ModelDeployedSchema, { ...identity, durationSeconds })
        : create(ModelDeploymentFailedSchema, { ...identity, code: error.code, message: error.message }),
    );
    return error;
  });
}

function tellLoadFailed(
  { state, announcements, instanceId, signal }: Deploying,
  alias: string,
  { name, version, lineage }: ModelVersion,
  { code, message }: AppError,
): void {
  const move = state.moves.get(alias);
  if (move === undefined || signal.aborted) return;
  const event = create(PredictionLoadFailedSchema, { modelName: name, version, alias, instanceId, code, message });
  announcements.tellLoadFailed(move, event, lineage?.runId ?? "");
}

function withdraw({ state, bus }: Deploying, alias: string): void {
  const held = state.live.get(alias);
  if (held === undefined) return;
  state.live.delete(alias);
  held[Symbol.dispose]();
  bus.logger.info({ event: "model.withdrawn", alias }, `${versionName(held.model.version)} is no ${alias} any more`);
}

/** The version that an alias names, by the registry. */
export function wanted({ log }: DeploymentState, alias: string): ModelVersion | undefined {
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
export async function goLive(
  { bus, onServing, state, models, signal, onLost }: Deploying,
  alias: string,
  version: ModelVersion,
  span?: Span,
): Promise<AppError | undefined> {
  const logger = bus.logger.child({ model: version.name, version: version.version, alias });
  const name = versionName(version);
  try {
    const pausesMs = alias === championAlias ? loadRetryPausesMs : [];
    const next = await withRetries(pausesMs, signal, async () => models.hold(version, { always: true }));
    next.model.firstAnswerParent = span?.spanContext();
    const previous = state.live.get(alias);
    state.live.set(alias, next);
    if (alias === championAlias) onServing(true);
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

import { create, type Message } from "@bufbuild/protobuf";
import type { EvaluationReport } from "../../gen/millrace/v1/evaluation_pb.ts";
import {
  ModelAliasMovedSchema,
  ModelVersionEvaluatedSchema,
  ModelVersionRegisteredSchema,
} from "../../gen/millrace/v1/events_pb.ts";
import type { AliasMove, ModelVersion } from "../../gen/millrace/v1/model_pb.ts";
import type { Insistence } from "../bus/asking.ts";
import type { Bus } from "../bus/bus.ts";
import type { CloudEventAttributes } from "../bus/cloud-event.ts";
import { AppError } from "../errors.ts";
import { withSpan } from "../telemetry/spans.ts";
import {
  championAlias,
  changeKey,
  defaultShares,
  type ModelLog,
  previousChampion,
  requireVersion,
  versionNumber,
} from "./model-log.ts";
import { createModelReader, type ModelReader } from "./model-reader.ts";

/**
 * Models, their versions and aliases. The state of a model is the replay of its log; each change is appended by
 * compare-and-set on the log's last sequence, so two writers can never both win, and a change that is made again
 * (same cause, same id) is found in the log and not made twice.
 */
export interface Registry {
  /** The model as it is now; an empty log if nothing is known of it. */
  read(modelName: string, insistence?: Insistence): Promise<ModelLog>;
  /** Adds a version, numbered after the last, and returns it with its number. */
  register(version: NewVersion, origin: ChangeOrigin): Promise<ModelVersion>;
  /** Notes what was measured. MODEL_NOT_FOUND if there is no such version. */
  recordEvaluation(modelName: string, version: number, report: EvaluationReport, origin: ChangeOrigin): Promise<void>;
  /**
   * Moves an alias. CONFLICT if it no longer names `expectedVersion`; MODEL_NOT_FOUND if there is no such version; INVALID_REQUEST for a
   * share of an alias that has none, or if the champion would be taken away.
   */
  moveAlias(move: NewMove, origin: ChangeOrigin): Promise<AliasMove>;
  /** Moves "champion" to the version that was champion before. MODEL_NOT_FOUND if there is none; CONFLICT as above. */
  rollBack(request: NewRollback, origin: ChangeOrigin): Promise<AliasMove>;
}

/** A version before it has its number. */
export type NewVersion = Pick<ModelVersion, "name" | "digest" | "manifest" | "lineage">;

export interface NewMove {
  readonly modelName: string;
  /** Default: champion. */
  readonly alias?: string;
  /** 0 takes the alias away. */
  readonly version: number;
  /** What the alias names as far as the caller knows, 0 for nothing; undefined for whatever it is. */
  readonly expectedVersion?: number | undefined;
  readonly reason: string;
  /** Share of the requests, 0..1, of the aliases that have one. Default: see {@link defaultShares}. */
  readonly share?: number | undefined;
}

export type NewRollback = Pick<NewMove, "modelName" | "expectedVersion" | "reason">;

/** Who makes a change: the same origin makes the same change to a model only once. */
export interface ChangeOrigin {
  /** Run in which it is made; empty for a person's request. */
  readonly runId: string;
  /** What led to it: an event, or for a person's request an id of the request. */
  readonly cause: Pick<CloudEventAttributes, "id" | "originTraceparent">;
  readonly signal?: AbortSignal;
  /** Waits without end for a broker that is away, and for space, until the signal aborts, as the stages of a run do. Default: false. */
  readonly patient?: boolean;
}

/** The registry on the broker's log. */
export function createRegistry(bus: Bus): Registry {
  const reader = createModelReader(bus);
  return {
    read: reader.read,
    register: async (version, origin) => {
      const key = changeId(origin, ModelVersionRegisteredSchema.typeName);
      const decide = (log: ModelLog) =>
        create(ModelVersionRegisteredSchema, { version: { ...version, version: latestVersion(log) + 1 } });
      return withSpan("register version", { attributes: { "millrace.model.name": version.name } }, async (span) => {
        const log = await change({ bus, reader, modelName: version.name, origin, key, decide });
        const registered = requireVersion(log, versionNumber(log.changes.get(key) ?? 0));
        span.setAttribute("millrace.model.version", registered.version);
        return registered;
      });
    },
    recordEvaluation: async (modelName, version, report, origin) => {
      const key = changeId(origin, ModelVersionEvaluatedSchema.typeName);
      const decide = (log: ModelLog) => {
        requireVersion(log, versionNumber(version));
        return create(ModelVersionEvaluatedSchema, { version, report });
      };
      const attributes = { "millrace.model.name": modelName, "millrace.model.version": version };
      await withSpan("record evaluation", { attributes }, () =>
        change({ bus, reader, modelName, origin, key, decide }),
      );
    },
    moveAlias: async (move, origin) => {
      const { modelName, alias = championAlias } = move;
      const key = changeId(origin, ModelAliasMovedSchema.typeName, alias);
      const decide = (log: ModelLog) => aliasMoved(log, { ...move, alias }, origin.runId);
      const attributes = {
        "millrace.model.name": modelName,
        "millrace.model.version": move.version,
        "millrace.model.alias": alias,
      };
      return withSpan("move alias", { attributes }, async () =>
        requireMove(await change({ bus, reader, modelName, origin, key, decide }), key),
      );
    },
    rollBack: async (request, origin) => {
      const { modelName } = request;
      const key = changeId(origin, ModelAliasMovedSchema.typeName);
      const decide = (log: ModelLog) => {
        const version = requirePreviousChampion(log);
        return aliasMoved(log, { ...request, alias: championAlias, version }, origin.runId);
      };
      const attributes = { "millrace.model.name": modelName, "millrace.model.alias": championAlias };
      return withSpan("roll back", { attributes }, async () =>
        requireMove(await change({ bus, reader, modelName, origin, key, decide }), key),
      );
    },
  };
}

/** The key under which a change from this origin is found in the `changes` of the model's log. */
export function changeId(origin: Pick<ChangeOrigin, "cause">, typeName: string, alias = championAlias): string {
  return changeKey(origin.cause.id, typeName, alias);
}

interface Change {
  readonly bus: Bus;
  readonly reader: ModelReader;
  readonly modelName: string;
  readonly origin: ChangeOrigin;
  readonly key: string;
  /** What to append to a log; throws if nothing may be. */
  readonly decide: (log: ModelLog) => Message;
}

/** Appends what `decide` makes of the current log, unless it is there already; decides anew when somebody else was quicker. */
async function change({ bus, reader, modelName, origin, key, decide }: Change): Promise<ModelLog> {
  const { runId, cause, signal, patient = false } = origin;
  const insistence = { signal, patient };
  for (;;) {
    signal?.throwIfAborted();
    const log = await reader.read(modelName, insistence);
    if (log.changes.has(key)) return log;
    const options = {
      runId,
      cause,
      modelName,
      expectedLastSequence: log.lastSequence,
      patient,
      ...(signal && { signal }),
    };
    try {
      // The broker drops repeated ids within a whole stream: the same cause may change several models.
      await bus.publish(decide(log), { ...options, key: `${modelName} ${key}` });
    } catch (thrown) {
      // Refused although nothing is newer: the decision itself is a conflict.
      if (AppError.from(thrown).code !== "CONFLICT" || !(await hasMovedOn(reader, log, insistence))) throw thrown;
    }
  }
}

async function hasMovedOn(reader: ModelReader, log: ModelLog, insistence: Insistence): Promise<boolean> {
  if ((await reader.read(log.name, insistence)).lastSequence !== log.lastSequence) return true;
  // The stream may have been made anew, and what is known come from the old one.
  reader.forget(log.name);
  return (await reader.read(log.name, insistence)).lastSequence !== log.lastSequence;
}

function latestVersion(log: ModelLog): number {
  return Math.max(0, ...log.versions.keys());
}

function requireMove(log: ModelLog, key: string): AliasMove {
  const move = log.movesByChange.get(key);
  if (move !== undefined) return move;
  throw new AppError("INTERNAL", `the move of an alias that was stored is not in the log of model ${log.name}`);
}

function requirePreviousChampion(log: ModelLog): number {
  const version = previousChampion(log);
  if (version !== undefined) return version;
  throw new AppError("MODEL_NOT_FOUND", `model ${log.name} had no champion before the one it has; move the alias`, {
    details: { model: log.name },
  });
}

function aliasMoved(log: ModelLog, move: NewMove & { readonly alias: string }, runId: string): Message {
  const { alias, version, expectedVersion, reason, share = defaultShares.get(alias) ?? 0 } = move;
  if (version === 0) requireRemovable(log, alias);
  else requireVersion(log, versionNumber(version));
  requireShare(alias, share);
  const previousVersion = log.aliases.get(alias) ?? 0;
  if (expectedVersion !== undefined && expectedVersion !== previousVersion) {
    const now = previousVersion === 0 ? "names no version" : `names version ${previousVersion}`;
    throw new AppError(
      "CONFLICT",
      `alias ${alias} of model ${log.name} ${now}, not ${expectedVersion}; look again and decide anew`,
      { details: { model: log.name, alias, version: String(previousVersion) } },
    );
  }
  const stored = { name: log.name, alias, version, previousVersion, reason, runId, share: version === 0 ? 0 : share };
  return create(ModelAliasMovedSchema, { move: stored });
}

function requireRemovable(log: ModelLog, alias: string): void {
  if (alias === championAlias) {
    const text = `model ${log.name} cannot be without a champion; move the alias to another version`;
    throw new AppError("INVALID_REQUEST", text, { details: { field: "version" } });
  }
  if (log.aliases.has(alias)) return;
  throw new AppError("MODEL_NOT_FOUND", `model ${log.name} has no alias ${alias}`, {
    details: { model: log.name, alias },
  });
}

function requireShare(alias: string, share: number): void {
  const details = { field: "share" };
  if (!(share >= 0 && share <= 1))
    throw new AppError("INVALID_REQUEST", `a share is from 0 to 1, not ${share}`, { details });
  if (share === 0 || defaultShares.has(alias)) return;
  const text = `alias ${alias} takes no share of the requests; ${[...defaultShares.keys()].join(" and ")} do`;
  throw new AppError("INVALID_REQUEST", text, { details });
}

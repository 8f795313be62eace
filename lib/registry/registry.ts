import { create, type Message } from "@bufbuild/protobuf";
import type { EvaluationReport } from "../../gen/millrace/v1/evaluation_pb.ts";
import {
  ModelAliasMovedSchema,
  ModelVersionEvaluatedSchema,
  ModelVersionRegisteredSchema,
} from "../../gen/millrace/v1/events_pb.ts";
import type { AliasMove, ModelVersion } from "../../gen/millrace/v1/model_pb.ts";
import type { Bus } from "../bus/bus.ts";
import { type CloudEventAttributes, eventIdFrom } from "../bus/cloud-event.ts";
import { eventTypeOf } from "../bus/event-types.ts";
import { followEvents } from "../bus/follow.ts";
import { registryStream, registrySubject } from "../bus/subjects.ts";
import { AppError } from "../errors.ts";
import { applyChange, championAlias, emptyModelLog, type ModelLog } from "./model-log.ts";

/**
 * Models, their versions and aliases. The state of a model is the replay of its log; each change is appended by
 * compare-and-set on the log's last sequence, so two writers can never both win, and a change that is made again
 * (same cause, same id) is found in the log and not made twice.
 */
export interface Registry {
  /** The model as it is now; an empty log if nothing is known of it. */
  read(modelName: string): Promise<ModelLog>;
  /** Adds a version, numbered after the last, and returns it with its number. */
  register(version: NewVersion, origin: ChangeOrigin): Promise<ModelVersion>;
  /** Notes what was measured. */
  recordEvaluation(modelName: string, version: number, report: EvaluationReport, origin: ChangeOrigin): Promise<void>;
  /** Moves an alias. CONFLICT if it no longer names `expectedVersion`; MODEL_NOT_FOUND if there is no such version. */
  moveAlias(move: NewMove, origin: ChangeOrigin): Promise<AliasMove>;
}

/** A version before it has its number. */
export type NewVersion = Pick<ModelVersion, "name" | "digest" | "manifest" | "lineage">;

export interface NewMove {
  readonly modelName: string;
  /** Default: champion. */
  readonly alias?: string;
  readonly version: number;
  /** What the alias names as far as the caller knows, 0 for nothing; undefined for whatever it is. */
  readonly expectedVersion?: number | undefined;
  readonly reason: string;
}

/** Who makes a change: the same origin makes the same change only once. */
export interface ChangeOrigin {
  /** Run in which it is made; empty for a person's request. */
  readonly runId: string;
  /** What led to it: an event, or for a person's request an id of the request. */
  readonly cause: Pick<CloudEventAttributes, "id" | "originTraceparent">;
  readonly signal?: AbortSignal;
}

/** The registry on the broker's log. */
export function createRegistry(bus: Bus): Registry {
  return {
    read: (modelName) => readModel(bus, modelName),
    register: async (version, origin) => {
      const log = await change(bus, version.name, ModelVersionRegisteredSchema.typeName, origin, (current) =>
        create(ModelVersionRegisteredSchema, {
          version: { ...version, version: Math.max(0, ...current.versions.keys()) + 1 },
        }),
      );
      return changed(log, origin, ModelVersionRegisteredSchema.typeName);
    },
    recordEvaluation: async (modelName, version, report, origin) => {
      await change(bus, modelName, ModelVersionEvaluatedSchema.typeName, origin, (current) => {
        requireVersion(current, version);
        return create(ModelVersionEvaluatedSchema, { version, report });
      });
    },
    moveAlias: async (move, origin) => {
      const log = await change(bus, move.modelName, ModelAliasMovedSchema.typeName, origin, (current) =>
        aliasMoved(current, move, origin.runId),
      );
      const made = log.moves.findLast(
        ({ version, alias }) => version === move.version && alias === (move.alias ?? championAlias),
      );
      if (made === undefined)
        throw new AppError("INTERNAL", `the move of ${move.modelName} to version ${move.version} is not in its log`);
      return made;
    },
  };
}

/** The id that a change from this origin has in the log. */
export function changeId(origin: Pick<ChangeOrigin, "cause">, typeName: string): string {
  return eventIdFrom(origin.cause.id, eventTypeOf(typeName).options.name);
}

async function readModel(bus: Bus, modelName: string): Promise<ModelLog> {
  const caughtUp = new AbortController();
  let log = emptyModelLog(modelName);
  await followEvents(bus, {
    stream: registryStream,
    filter: registrySubject(modelName),
    onEvent: (event) => {
      log = applyChange(log, event);
    },
    onCaughtUp: () => caughtUp.abort(),
    signal: caughtUp.signal,
  });
  return log;
}

/** Appends what `decide` makes of the current log, unless it is there already; decides anew when somebody else was quicker. */
async function change(
  bus: Bus,
  modelName: string,
  typeName: string,
  origin: ChangeOrigin,
  decide: (log: ModelLog) => Message,
): Promise<ModelLog> {
  for (;;) {
    origin.signal?.throwIfAborted();
    const log = await readModel(bus, modelName);
    if (log.changes.has(changeId(origin, typeName))) return log;
    try {
      await bus.publish(decide(log), { ...origin, modelName, expectedLastSequence: log.lastSequence });
      return await readModel(bus, modelName);
    } catch (thrown) {
      if (
        AppError.from(thrown).code !== "CONFLICT" ||
        log.lastSequence === (await readModel(bus, modelName)).lastSequence
      )
        throw thrown;
    }
  }
}

function changed(log: ModelLog, origin: ChangeOrigin, typeName: string): ModelVersion {
  return requireVersion(log, log.changes.get(changeId(origin, typeName)) ?? 0);
}

function requireVersion(log: ModelLog, version: number): ModelVersion {
  const found = log.versions.get(version);
  if (found === undefined) {
    throw new AppError(
      "MODEL_NOT_FOUND",
      `model ${log.name} has no version ${version}; it has ${[...log.versions.keys()].join(", ") || "none"}`,
      {
        details: { model: log.name, version: String(version) },
      },
    );
  }
  return found;
}

function aliasMoved(
  log: ModelLog,
  { alias = championAlias, version, expectedVersion, reason }: NewMove,
  runId: string,
): Message {
  requireVersion(log, version);
  const previousVersion = log.aliases.get(alias) ?? 0;
  if (expectedVersion !== undefined && expectedVersion !== previousVersion) {
    throw new AppError(
      "CONFLICT",
      `alias ${alias} of model ${log.name} names version ${previousVersion}, not ${expectedVersion}; look again and decide anew`,
      {
        details: { model: log.name, alias, version: String(previousVersion) },
      },
    );
  }
  return create(ModelAliasMovedSchema, { move: { name: log.name, alias, version, previousVersion, reason, runId } });
}

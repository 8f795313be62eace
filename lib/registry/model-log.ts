import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type {
  ModelAliasMoved,
  ModelVersionEvaluated,
  ModelVersionRegistered,
} from "../../gen/millrace/v1/events_pb.ts";
import { type AliasMove, type Model, ModelSchema, type ModelVersion } from "../../gen/millrace/v1/model_pb.ts";
import { eventIdFrom, type ReceivedEvent } from "../bus/cloud-event.ts";
import { AppError } from "../errors.ts";

/** The alias of the version that answers predictions. */
export const championAlias = "champion";
/** The alias of a version that answers a share of them, to see how it does. */
export const canaryAlias = "canary";
/** The alias of a version that gets copies of a share of them, and whose answers nobody sees. */
export const shadowAlias = "shadow";
/** Shares of the requests that these aliases get unless something else is said. No other alias has a share. */
export const defaultShares: ReadonlyMap<string, number> = new Map([
  [canaryAlias, 0.1],
  [shadowAlias, 1],
]);
/** The model of a run that names none. A prediction service answers with this one unless told otherwise. */
export const defaultModelName = "default";

/** A model as its log tells it: the replay of every change to it. */
export interface ModelLog {
  readonly name: string;
  /** By number of the version. */
  readonly versions: ReadonlyMap<number, ModelVersion>;
  /** Version that each alias names. */
  readonly aliases: ReadonlyMap<string, number>;
  /** Share of the requests, 0..1, of each alias that has one. */
  readonly shares: ReadonlyMap<string, number>;
  /** Every move of an alias, oldest first. */
  readonly moves: readonly AliasMove[];
  /** Version that each change, by its {@link changeKey}, was about: a change made twice is found here. */
  readonly changes: ReadonlyMap<string, number>;
  /** The moves among the changes. */
  readonly movesByChange: ReadonlyMap<string, AliasMove>;
  /** Sequence of the last change; 0 for none. Whoever changes the model names it, and is refused if it is no longer the last. */
  readonly lastSequence: number;
}

/** A model that nothing is known of. */
export function emptyModelLog(name: string): ModelLog {
  return {
    name,
    versions: new Map(),
    aliases: new Map(),
    shares: new Map(),
    moves: [],
    changes: new Map(),
    movesByChange: new Map(),
    lastSequence: 0,
  };
}

/** Names a change by what led to it and what it changes: the same cause makes the same change once. */
export function changeKey(causationId: string, typeName: string, alias = championAlias): string {
  return eventIdFrom(causationId, typeName, alias === championAlias ? "" : alias);
}

/** The model after one more change. Events that are no change to a model leave it as it is. */
export function applyChange(log: ModelLog, event: ReceivedEvent): ModelLog {
  const next = { ...log, lastSequence: event.sequence };
  switch (event.message.$typeName) {
    case "millrace.v1.ModelVersionRegistered":
      return register(next, event as ReceivedEvent<ModelVersionRegistered>);
    case "millrace.v1.ModelVersionEvaluated":
      return evaluate(next, event as ReceivedEvent<ModelVersionEvaluated>);
    case "millrace.v1.ModelAliasMoved":
      return moveAlias(next, event as ReceivedEvent<ModelAliasMoved>);
    default:
      return next;
  }
}

function register(log: ModelLog, { causationId, message, time }: ReceivedEvent<ModelVersionRegistered>): ModelLog {
  if (message.version === undefined) return log;
  const version = { ...message.version, registeredAt: timestampFromDate(time) };
  return {
    ...log,
    versions: withEntry(log.versions, version.version, version),
    changes: withEntry(log.changes, changeKey(causationId, message.$typeName), version.version),
  };
}

function evaluate(log: ModelLog, { causationId, message }: ReceivedEvent<ModelVersionEvaluated>): ModelLog {
  const version = log.versions.get(message.version);
  if (version === undefined || message.report === undefined) return log;
  const evaluated = { ...version, evaluation: message.report };
  return {
    ...log,
    versions: withEntry(log.versions, message.version, evaluated),
    changes: withEntry(log.changes, changeKey(causationId, message.$typeName), message.version),
  };
}

function moveAlias(log: ModelLog, { causationId, message, time }: ReceivedEvent<ModelAliasMoved>): ModelLog {
  if (message.move === undefined) return log;
  const move = { ...message.move, movedAt: timestampFromDate(time) };
  const key = changeKey(causationId, message.$typeName, move.alias);
  return {
    ...log,
    ...namingAfter(log, move),
    moves: [...log.moves, move],
    changes: withEntry(log.changes, key, move.version),
    movesByChange: withEntry(log.movesByChange, key, move),
  };
}

/**
 * What names what after a move. Once the champion is what canary or shadow was tried out as, the trial is over: else it would begin again
 * with the next champion.
 */
function namingAfter({ aliases, shares }: ModelLog, { alias, version, share }: AliasMove) {
  const next = { aliases: new Map(aliases), shares: new Map(shares) };
  const remove = (name: string) => {
    next.aliases.delete(name);
    next.shares.delete(name);
  };
  if (version === 0) remove(alias);
  else next.aliases.set(alias, version);
  if (version !== 0 && defaultShares.has(alias)) next.shares.set(alias, share);
  if (alias === championAlias) {
    for (const name of defaultShares.keys()) if (next.aliases.get(name) === version) remove(name);
  }
  return next;
}

function withEntry<K, V>(map: ReadonlyMap<K, V>, key: K, value: V): ReadonlyMap<K, V> {
  return new Map(map).set(key, value);
}

/** A version in a sentence. */
export function versionName({ name, version }: Pick<ModelVersion, "name" | "version">): string {
  return `model ${name} version ${version}`;
}

/** The version that answers predictions, or undefined. */
export function championOf(log: ModelLog): ModelVersion | undefined {
  return log.versions.get(log.aliases.get(championAlias) ?? 0);
}

/** How a version is named: by number, by alias, or by the digest of its manifest. */
export type VersionSelector =
  | { readonly case: "version"; readonly value: number }
  | { readonly case: "alias"; readonly value: string }
  | { readonly case: "digest"; readonly value: string };

/** The selector of a version by its number. */
export function versionNumber(value: number): VersionSelector {
  return { case: "version", value };
}

/** The version that is named so, the newest if a digest has several. MODEL_NOT_FOUND if there is none. */
export function requireVersion(log: ModelLog, selector: VersionSelector | { readonly case: undefined }): ModelVersion {
  const version = findVersion(log, selector);
  if (version !== undefined) return version;
  const named = selector.case === undefined ? "champion" : `${selector.case} "${selector.value}"`;
  const text = `model "${log.name}" has no ${named}; ListModelVersions shows what it has`;
  throw new AppError("MODEL_NOT_FOUND", text, { details: { model: log.name } });
}

function findVersion(
  log: ModelLog,
  selector: VersionSelector | { readonly case: undefined },
): ModelVersion | undefined {
  switch (selector.case) {
    case "version":
      return log.versions.get(selector.value);
    case "digest":
      return [...log.versions.values()].findLast(({ digest }) => digest === selector.value);
    default:
      return log.versions.get(log.aliases.get(selector.case === "alias" ? selector.value : championAlias) ?? 0);
  }
}

/**
 * The number of the version that was champion before, or undefined. Going back to an earlier champion takes back what came after it: after
 * 1, 2, 3 and back to 2, the one before is 1.
 */
export function previousChampion({ moves }: ModelLog): number | undefined {
  const line: number[] = [];
  for (const { alias, version } of moves) {
    if (alias !== championAlias) continue;
    const earlier = line.indexOf(version);
    if (earlier === -1) line.push(version);
    else line.length = earlier + 1;
  }
  return line.at(-2);
}

/** The model in the words of the API. */
export function modelFromLog({ name, versions, aliases, shares }: ModelLog): Model {
  return create(ModelSchema, {
    name,
    latestVersion: Math.max(0, ...versions.keys()),
    aliases: Object.fromEntries(aliases),
    shares: Object.fromEntries(shares),
  });
}

import type {
  AliasMove,
  GetModelVersionRequest,
  Model,
  ModelVersion,
  MoveAliasRequest,
  RollBackRequest,
} from "../../gen/millrace/v1/model_pb.ts";
import { orAborted } from "../../lib/abort.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import { eventIdFrom } from "../../lib/bus/cloud-event.ts";
import { followEvents } from "../../lib/bus/follow.ts";
import { registryStream, streamSubjects } from "../../lib/bus/subjects.ts";
import { AppError } from "../../lib/errors.ts";
import {
  applyChange,
  emptyModelLog,
  type ModelLog,
  modelFromLog,
  requireVersion,
} from "../../lib/registry/model-log.ts";
import type { ChangeOrigin, Registry } from "../../lib/registry/registry.ts";

/**
 * All models, as the registry's log tells them, to be read without asking the broker. Nothing is answered before the log has been read; the
 * signal ends the waiting.
 */
export interface ModelCatalogue extends AsyncDisposable {
  models(signal: AbortSignal): Promise<Model[]>;
  /** Newest first. MODEL_NOT_FOUND if nothing is known of the model. */
  versions(name: string, signal: AbortSignal): Promise<ModelVersion[]>;
  /** MODEL_NOT_FOUND if there is no such version or alias. */
  version(name: string, selector: GetModelVersionRequest["selector"], signal: AbortSignal): Promise<ModelVersion>;
  /** Oldest first. */
  moves(name: string, signal: AbortSignal): Promise<AliasMove[]>;
  /** CONFLICT if the alias does not name the expected version. */
  moveAlias(request: MoveAliasRequest, signal: AbortSignal): Promise<AliasMove>;
  /** MODEL_NOT_FOUND if there was no champion before; CONFLICT if the champion is not the expected version. */
  rollBack(request: RollBackRequest, signal: AbortSignal): Promise<AliasMove>;
  /** Resolves when all that the log held at the start is part of the catalogue. */
  readonly ready: Promise<void>;
}

/** Starts to follow the registry's log. */
export function openModelCatalogue(bus: Bus, registry: Registry): ModelCatalogue {
  const stopping = new AbortController();
  const logs = new Map<string, ModelLog>();
  let ready = () => {};
  const whenReady = new Promise<void>((resolve) => {
    ready = resolve;
  });
  const following = followEvents(bus, {
    stream: registryStream,
    filter: streamSubjects[registryStream],
    signal: stopping.signal,
    onCaughtUp: () => ready(),
    onRestart: () => logs.clear(),
    onEvent: (event) => {
      const name = event.subject.split(".").at(-1) ?? "";
      logs.set(name, applyChange(logs.get(name) ?? emptyModelLog(name), event));
    },
  });
  const known = async (name: string, signal: AbortSignal): Promise<ModelLog> => {
    await orAborted(whenReady, signal);
    return requireModel(logs, name);
  };
  return {
    models: async (signal) => {
      await orAborted(whenReady, signal);
      return [...logs.values()].map(modelFromLog).sort((a, b) => a.name.localeCompare(b.name));
    },
    versions: async (name, signal) =>
      [...(await known(name, signal)).versions.values()].sort((a, b) => b.version - a.version),
    version: async (name, selector, signal) => requireVersion(await known(name, signal), selector),
    moves: async (name, signal) => [...(await known(name, signal)).moves],
    moveAlias: ({ name, ...move }, signal) =>
      registry.moveAlias({ ...move, modelName: name, reason: move.reason || "requested" }, aRequest(signal)),
    rollBack: ({ name, expectedVersion, reason }, signal) =>
      registry.rollBack({ modelName: name, expectedVersion, reason: reason || "rolled back" }, aRequest(signal)),
    ready: whenReady,
    [Symbol.asyncDispose]: async () => {
      stopping.abort();
      await following;
    },
  };
}

/** Each request is a change of its own, however often the same one has been made before. */
function aRequest(signal: AbortSignal): ChangeOrigin {
  return { runId: "", cause: { id: eventIdFrom(crypto.randomUUID(), "request"), originTraceparent: "" }, signal };
}

function requireModel(logs: ReadonlyMap<string, ModelLog>, name: string): ModelLog {
  const log = logs.get(name);
  if (log !== undefined) return log;
  throw new AppError(
    "MODEL_NOT_FOUND",
    `there is no model "${name}"; there are: ${[...logs.keys()].join(", ") || "none yet"}`,
    {
      details: { model: name },
    },
  );
}

import type { StoredMsg } from "@nats-io/jetstream";
import type { Insistence } from "../bus/asking.ts";
import type { Bus } from "../bus/bus.ts";
import { eventFromMessage } from "../bus/cloud-event.ts";
import { registryStream, registrySubject, requireToken } from "../bus/subjects.ts";
import { applyChange, emptyModelLog, type ModelLog } from "./model-log.ts";

/** Reads the logs of models, each change once: what has been read is kept, and only what is newer is asked for. */
export interface ModelReader {
  /** The model with every change that was stored before the call. */
  read(modelName: string, insistence?: Insistence): Promise<ModelLog>;
  /** Reads the model from its beginning the next time. */
  forget(modelName: string): void;
}

export function createModelReader(bus: Bus): ModelReader {
  const logs = new Map<string, ModelLog>();
  return {
    read: async (modelName, insistence = {}) => {
      requireToken("model name", modelName);
      const log = await readOn(bus, logs.get(modelName) ?? emptyModelLog(modelName), insistence);
      // Several reads may be under way; one that began earlier must not undo what a later one has found.
      if (log.lastSequence > (logs.get(modelName)?.lastSequence ?? 0)) logs.set(modelName, log);
      return log;
    },
    forget: (modelName) => void logs.delete(modelName),
  };
}

async function readOn(bus: Bus, known: ModelLog, insistence: Insistence): Promise<ModelLog> {
  let log = known;
  const failure = `the log of model ${known.name} could not be read`;
  for (;;) {
    const query = { seq: log.lastSequence + 1, next_by_subj: registrySubject(known.name) };
    const stored = await bus.ask(() => bus.jsm.streams.getMessage(registryStream, query), { failure, ...insistence });
    if (stored === null) return log;
    log = withStored(bus, log, stored);
  }
}

/** An unreadable message changes nothing, but it counts: writers name the last sequence, whatever it holds. */
function withStored(bus: Bus, log: ModelLog, stored: StoredMsg): ModelLog {
  try {
    return applyChange(log, eventFromMessage(stored));
  } catch (error) {
    bus.logger.warn({ event: "registry.unreadable", model: log.name, sequence: stored.seq, error }, "passed over");
    return { ...log, lastSequence: stored.seq };
  }
}

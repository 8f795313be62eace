/** What others hear of deployments: a run of that of its model, and whoever watches a model of versions that could not be loaded. */
import { context } from "@opentelemetry/api";
import {
  type ModelDeployed,
  ModelDeployedSchema,
  type ModelDeploymentFailed,
  type PredictionLoadFailed,
} from "../../gen/millrace/v1/events_pb.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import type { ReceivedEvent } from "../../lib/bus/cloud-event.ts";
import { eventTypeOf } from "../../lib/bus/event-types.ts";
import { eventStream, eventSubject } from "../../lib/bus/subjects.ts";
import { AppError } from "../../lib/errors.ts";
import { createWorkQueue } from "./work-queue.ts";

/** Everything is told once, in the background: a broker that is away delays no deployment. */
export interface Announcements {
  /**
   * Whether the run that made a change of the champion has heard that the model is live, from this instance or another. A change that a person
   * made belongs to no run, and counts as told. Waits for a broker that is away.
   */
  deploymentTold(move: ReceivedEvent): Promise<boolean>;
  /** Tells that run, in the active trace, unless it has heard. */
  tell(move: ReceivedEvent, event: ModelDeployed | ModelDeploymentFailed): void;
  /** Tells that the version an alias was moved to cannot answer. `runId` is the run that trained it. */
  tellLoadFailed(move: ReceivedEvent, event: PredictionLoadFailed, runId: string): void;
  /** Resolves when all is told, or given up because the signal aborted. */
  settled(): Promise<void>;
}

export function createAnnouncements(bus: Bus, signal: AbortSignal): Announcements {
  const queue = createWorkQueue("deployment.untold", bus.logger, signal);
  /** Id of the last change that was told of, by the event that told it. */
  const told = new Map<string, string>();
  /** Id of the last change whose version could not be loaded, by alias. */
  const toldFailed = new Map<string, string>();
  return {
    deploymentTold: async (move) => {
      const known = told.get(ModelDeployedSchema.typeName) === move.id || (await isDeployed(bus, move, signal));
      if (known) told.set(ModelDeployedSchema.typeName, move.id);
      return known;
    },
    tell: (move, event) => {
      const { id, correlationId: runId } = move;
      if (told.get(ModelDeployedSchema.typeName) === id || told.get(event.$typeName) === id) return;
      told.set(event.$typeName, id);
      const publish = () => bus.publish(event, { runId, cause: move, patient: true, signal });
      void queue.add(context.bind(context.active(), async () => void (await publish())));
    },
    tellLoadFailed: (move, event, runId) => {
      const { alias, modelName, instanceId } = event;
      if (toldFailed.get(alias) === move.id) return;
      toldFailed.set(alias, move.id);
      const options = { runId, modelName, cause: move, key: instanceId, patient: true, signal };
      void queue.add(async () => void (await bus.publish(event, options)));
    },
    settled: () => queue.settled(),
  };
}

async function isDeployed(
  bus: Bus,
  { id, correlationId: runId }: ReceivedEvent,
  signal: AbortSignal,
): Promise<boolean> {
  if (runId === "") return true;
  const subject = eventSubject(runId, eventTypeOf(ModelDeployedSchema).options.name);
  try {
    const last = await bus.lastEvent(eventStream, subject, { patient: true, signal });
    return last?.causationId === id;
  } catch (thrown) {
    // Rubbish under that subject is no news of the deployment.
    if (AppError.from(thrown).code === "EVENT_INVALID") return false;
    throw thrown;
  }
}

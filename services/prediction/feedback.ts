import { create } from "@bufbuild/protobuf";
import { PredictionFeedbackSchema } from "../../gen/millrace/v1/events_pb.ts";
import type { SendFeedbackRequest } from "../../gen/millrace/v1/prediction_pb.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import { AppError } from "../../lib/errors.ts";
import { requireVersion } from "../../lib/registry/model-log.ts";
import { readModelManifest } from "../../lib/registry/model-manifest.ts";
import { recordFeedback } from "../../lib/telemetry/serving-metrics.ts";
import type { Deployment } from "./deployment.ts";
import { parsePredictionId } from "./prediction-id.ts";

export interface FeedbackDependencies {
  readonly bus: Bus;
  readonly artifacts: ArtifactStore;
  readonly deployment: Pick<Deployment, "log" | "models">;
}

/** Takes in what images really were. */
export interface Feedback {
  /**
   * Stores the true class of an image and says whether the answer had named it; the same again is stored once. INVALID_REQUEST for an id that is
   * none and for a class that the model does not have, MODEL_NOT_FOUND if it does not know the version that is said to have answered.
   */
  send(request: SendFeedbackRequest, signal: AbortSignal): Promise<{ correct: boolean }>;
}

export function createFeedback({ bus, artifacts, deployment }: FeedbackDependencies): Feedback {
  return {
    async send({ predictionId, label }, signal) {
      const { version: number, classIndex } = parsePredictionId(predictionId);
      const { models, log } = deployment;
      const version = requireVersion(log, { case: "version", value: number });
      const state = models.state(version);
      const { classes } = state.kind === "ready" ? state.model.manifest : await readModelManifest(version, artifacts);
      if (classIndex >= classes.length) {
        const text = `no answer is named "${predictionId}": model ${log.name} version ${number} has ${classes.length} classes`;
        throw new AppError("INVALID_REQUEST", text, { details: { field: "prediction_id" } });
      }
      if (!classes.includes(label)) {
        const text = `"${label}" is no class of model ${log.name} version ${number}; its classes are ${classes.join(", ")}`;
        throw new AppError("INVALID_REQUEST", text, { details: { field: "label" } });
      }
      const correct = classes[classIndex] === label;
      const told = {
        modelName: log.name,
        version: number,
        predictionId,
        predictedClassIndex: classIndex,
        label,
        correct,
      };
      const { duplicate } = await bus.publish(create(PredictionFeedbackSchema, told), {
        runId: version.lineage?.runId ?? "",
        modelName: log.name,
        key: `${predictionId} ${label}`,
        signal,
      });
      if (!duplicate) recordFeedback(version, correct);
      return { correct };
    },
  };
}

import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { createClient, createRouterTransport } from "@connectrpc/connect";
import { ArtifactSchema } from "../../../gen/millrace/v1/artifact_pb.ts";
import { ModelVersionSchema } from "../../../gen/millrace/v1/model_pb.ts";
import {
  EpochMetricsSchema,
  TrainingEnd,
  TrainingProgressSchema,
  TrainingService,
  TrainingSummarySchema,
} from "../../../gen/millrace/v1/training_pb.ts";
import type { Training } from "../../../services/training/handlers.ts";
import { trainingRoutes } from "../../../services/training/routes.ts";

test("a training by request tells of steps, epochs, how it ended and, at last, its model", async () => {
  const training: Training = {
    async train(_order, { onProgress, onEpoch }) {
      onProgress?.(create(TrainingProgressSchema, { step: 3 }));
      onEpoch(create(EpochMetricsSchema, { epoch: 1 }), create(ArtifactSchema));
      const summary = create(TrainingSummarySchema, { end: TrainingEnd.COMPLETED });
      return { model: create(ModelVersionSchema, { version: 7 }), summary };
    },
  };
  const transport = createRouterTransport((router) => trainingRoutes(training).register(router, {}));
  const updates = [];
  const request = { datasetDigest: `sha256:${"0".repeat(64)}`, spec: {} };
  for await (const { update } of createClient(TrainingService, transport).train(request)) updates.push(update);
  assert.deepEqual(
    updates.map((update) => update.case),
    ["progress", "epoch", "summary", "model"],
  );
  const [, , summary, model] = updates;
  assert.equal(summary?.case === "summary" && summary.value.end, TrainingEnd.COMPLETED);
  assert.equal(model?.case === "model" && model.value.version, 7);
});

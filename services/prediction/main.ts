import { z } from "zod";
import { defineConfig } from "../../lib/config.ts";
import { createImageFetcher } from "../../lib/images/image-url.ts";
import { championAlias, defaultModelName } from "../../lib/registry/model-log.ts";
import { runService, type ServiceContext, type ServiceParts } from "../../lib/service.ts";
import { observeServing, type ServingState } from "../../lib/telemetry/serving-metrics.ts";
import { shareAmongWorkers } from "../../lib/workers.ts";
import { createByteBudget } from "./admission.ts";
import { createAnswerLog } from "./answer-log.ts";
import { type BatchSettings, defaultMaxWaitMs } from "./batch-settings.ts";
import { type Deployment, followAliases } from "./deployment.ts";
import { createFeedback } from "./feedback.ts";
import { createPrediction } from "./handlers.ts";
import { createOpenInference } from "./open-inference/inference.ts";
import { createOpenInferenceRest } from "./open-inference/rest.ts";
import { openInferenceRoutes } from "./open-inference/routes.ts";
import { predictionRoutes } from "./routes.ts";

const settings = {
  modelName: z.string().default(defaultModelName).describe("name of the model whose versions answer"),
  modelMemoryMb: z.coerce
    .number()
    .int()
    .min(0)
    .default(256)
    .describe("the most megabytes of memory for versions that no alias names, 0 or more; 0 keeps and loads none"),
  eventIntervalMs: z.coerce
    .number()
    .int()
    .min(0)
    .max(600_000)
    .default(5_000)
    .describe("milliseconds after which answers are published as an event, 0 to 600000; 0 publishes none"),
  keptImageShare: z.coerce
    .number()
    .min(0)
    .max(1)
    .default(0)
    .describe("the share of answers whose images are kept as artifacts, 0 to 1"),
  driftWindow: z.coerce
    .number()
    .int()
    .min(0)
    .default(1_000)
    .describe("the number of answers that are compared with the data set at a time; 0 compares none"),
  workers: z.coerce
    .number()
    .int()
    .min(1)
    .max(256)
    .default(1)
    .describe("the number of processes that share the port, 1 to 256; each has its own models in memory"),
  maxBatchSize: z.coerce
    .number()
    .int()
    .min(1)
    .max(1024)
    .default(32)
    .describe("the most images that are classified together, 1 to 1024"),
  maxBatchDelayMs: z.coerce
    .number()
    .min(0)
    .max(1000)
    .default(0)
    .describe("milliseconds that an image waits for others while the network has nothing to do, 0 to 1000"),
  maxQueueLength: z.coerce
    .number()
    .int()
    .min(1)
    .max(100_000)
    .default(512)
    .describe("the most images that wait or are decoded at the same time, 1 to 100000; more are refused"),
  queueMemoryMb: z.coerce
    .number()
    .int()
    .min(8)
    .default(256)
    .describe(
      "the most megabytes of the images that wait or are decoded at the same time, 8 or more; more are refused",
    ),
  maxWaitMs: z.coerce
    .number()
    .min(0)
    .max(60_000)
    .default(defaultMaxWaitMs)
    .describe(
      "the most milliseconds that an image may have to wait for those ahead of it, 0 to 60000; others are refused, unless the next batch has room",
    ),
  imageUrlHosts: z
    .string()
    .default("")
    .transform((list) => list.split(",").flatMap((host) => host.trim().toLowerCase() || []))
    .describe(
      "the hosts that images may be fetched from, separated by commas, such as images.example.org, *.example.org or * for any; none by default",
    ),
};

await runService(defineConfig("prediction", settings), buildPrediction, { workers: ({ workers }) => workers });

function buildPrediction({
  config,
  logger,
  bus,
  artifacts,
  instanceId,
  setServing,
  isServing,
}: ServiceContext<typeof settings>): ServiceParts {
  const { modelName, maxBatchSize, maxBatchDelayMs: maxDelayMs, maxQueueLength, maxWaitMs } = config;
  const deployment = followAliases({
    bus,
    artifacts,
    modelName,
    instanceId,
    batching: { maxBatchSize, maxDelayMs, maxQueueLength, maxWaitMs },
    cacheBytes: config.modelMemoryMb * 1024 ** 2,
    onServing: setServing,
  });
  const answers = createAnswerLog({
    bus,
    artifacts,
    instanceId,
    intervalMs: config.eventIntervalMs,
    imageShare: config.keptImageShare,
    driftWindow: config.driftWindow,
  });
  const waitingBytes = createByteBudget(config.queueMemoryMb * 1024 ** 2);
  const dependencies = { deployment, answers, waitingBytes };
  const shareBatching = shareAmongWorkers<BatchSettings>("batching", (shared) => {
    deployment.batching = shared;
  });
  const fetchImage = createImageFetcher(config.imageUrlHosts);
  const prediction = createPrediction({ ...dependencies, fetchImage, shareBatching, logger });
  const feedback = createFeedback({ bus, artifacts, deployment });
  const inference = createOpenInference({ ...dependencies, isServing });
  const stopObserving = observeServing(() => servingState(deployment));
  return {
    routes: [predictionRoutes({ prediction, feedback, deployment }), openInferenceRoutes(inference)],
    fallback: createOpenInferenceRest({ inference, logger, corsOrigins: config.corsOrigins }),
    ready: deployment.ready,
    resources: [deployment, answers, { [Symbol.asyncDispose]: async () => stopObserving() }],
  };
}

/** The longest queue counts: each model has its own, with the same limit. */
function servingState({ batching, live, models }: Deployment): ServingState {
  const queueLength = Math.max(0, ...models.loaded.map((model) => model.queueLength));
  return { queueLength, queueLimit: batching.maxQueueLength, model: live(championAlias)?.version };
}

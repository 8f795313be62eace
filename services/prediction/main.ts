import { z } from "zod";
import { defineConfig } from "../../lib/config.ts";
import { createImageFetcher } from "../../lib/images/image-url.ts";
import { defaultModelName } from "../../lib/registry/model-log.ts";
import { runService } from "../../lib/service.ts";
import { followChampion } from "./deployment.ts";
import { createPrediction } from "./handlers.ts";
import { createOpenInference } from "./open-inference/inference.ts";
import { createOpenInferenceRest } from "./open-inference/rest.ts";
import { openInferenceRoutes } from "./open-inference/routes.ts";
import { predictionRoutes } from "./routes.ts";

const schema = defineConfig("prediction", {
  modelName: z.string().default(defaultModelName).describe("name of the model whose champion answers"),
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
  imageUrlHosts: z
    .string()
    .default("")
    .transform((list) => list.split(",").flatMap((host) => host.trim().toLowerCase() || []))
    .describe(
      "the hosts that images may be fetched from, separated by commas, such as images.example.org, *.example.org or * for any; none by default",
    ),
});

await runService(schema, ({ config, logger, bus, artifacts, instanceId, setServing }) => {
  const { modelName, maxBatchSize, maxBatchDelayMs: maxDelayMs, maxQueueLength } = config;
  const batching = { maxBatchSize, maxDelayMs, maxQueueLength };
  const deployment = followChampion({ bus, artifacts, modelName, instanceId, batching, onServing: setServing });
  const dependencies = { deployment, modelName };
  const fetchImage = createImageFetcher(config.imageUrlHosts);
  const inference = createOpenInference(dependencies);
  return {
    routes: [predictionRoutes(createPrediction({ ...dependencies, fetchImage })), openInferenceRoutes(inference)],
    fallback: createOpenInferenceRest(inference, logger),
    ready: deployment.ready,
    resources: [deployment],
  };
});

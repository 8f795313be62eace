import { z } from "zod";
import { defineConfig } from "../../lib/config.ts";
import { defaultModelName } from "../../lib/registry/model-log.ts";
import { runService } from "../../lib/service.ts";
import { followChampion } from "./deployment.ts";
import { createPrediction } from "./handlers.ts";
import { predictionRoutes } from "./routes.ts";

const schema = defineConfig("prediction", {
  modelName: z.string().default(defaultModelName).describe("name of the model whose champion answers"),
});

await runService(schema, ({ config: { modelName }, bus, artifacts, instanceId }) => {
  const deployment = followChampion({ bus, artifacts, modelName, instanceId });
  const prediction = createPrediction({ current: deployment.current, modelName });
  return { routes: [predictionRoutes(prediction)], ready: deployment.ready, resources: [deployment] };
});

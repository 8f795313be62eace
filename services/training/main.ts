import { defineConfig } from "../../lib/config.ts";
import { runService } from "../../lib/service.ts";
import { createTraining, trainingStage } from "./handlers.ts";
import { trainingRoutes } from "./routes.ts";

await runService(defineConfig("training", {}), ({ artifacts, registry, bus }) => {
  const training = createTraining({ artifacts, registry });
  return { routes: [trainingRoutes(training)], stage: trainingStage(training, bus) };
});

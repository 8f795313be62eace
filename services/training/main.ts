import { defineConfig } from "../../lib/config.ts";
import { findEngine } from "../../lib/nn/engine.ts";
import { runService } from "../../lib/service.ts";
import { createTraining, trainingStage } from "./handlers.ts";
import { trainingRoutes } from "./routes.ts";

await runService(defineConfig("training", {}), ({ config: { engine }, artifacts, registry, bus }) => {
  const training = createTraining({ artifacts, registry, engine: findEngine(engine).name });
  return { routes: [trainingRoutes(training)], stage: trainingStage(training, bus) };
});

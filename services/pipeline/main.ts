import { defineConfig } from "../../lib/config.ts";
import { runService } from "../../lib/service.ts";
import { createPipeline } from "./handlers.ts";
import { openModelCatalogue } from "./model-catalogue.ts";
import { modelRegistryRoutes, pipelineRoutes } from "./routes.ts";
import { openRunIndex } from "./run-index.ts";

await runService(defineConfig("pipeline", {}), ({ bus, registry }) => {
  const runs = openRunIndex(bus);
  const catalogue = openModelCatalogue(bus, registry);
  return {
    routes: [pipelineRoutes(createPipeline({ bus, runs })), modelRegistryRoutes(catalogue)],
    ready: Promise.all([runs.ready, catalogue.ready]),
    resources: [runs, catalogue],
  };
});

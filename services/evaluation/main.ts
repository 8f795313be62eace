import { z } from "zod";
import { defineConfig } from "../../lib/config.ts";
import { runService } from "../../lib/service.ts";
import { createEvaluation, evaluationStage } from "./handlers.ts";
import { evaluationRoutes } from "./routes.ts";

const schema = defineConfig("evaluation", {
  minimumAccuracy: z.coerce
    .number()
    .min(0)
    .max(1)
    .default(0.5)
    .describe("least accuracy, 0 to 1, of a model that goes live, where a run does not say otherwise"),
});

await runService(schema, ({ config, artifacts, registry }) => {
  const evaluation = createEvaluation({ artifacts, registry, gate: { minimumAccuracy: config.minimumAccuracy } });
  return { routes: [evaluationRoutes(evaluation)], stage: evaluationStage(evaluation, registry) };
});

import { z } from "zod";
import { userCacheFolder } from "../../lib/cache-folder.ts";
import { defineConfig } from "../../lib/config.ts";
import { runService } from "../../lib/service.ts";
import { createIngestion, ingestionStage } from "./handlers.ts";
import { datasetRoutes } from "./routes.ts";

const schema = defineConfig("ingestion", {
  cacheFolder: z.string().default(userCacheFolder(process.env)).describe("folder in which downloads are kept"),
});

await runService(schema, ({ config, artifacts }) => {
  const ingestion = createIngestion({ artifacts, cacheFolder: config.cacheFolder });
  return { routes: [datasetRoutes(ingestion)], stage: ingestionStage(ingestion) };
});

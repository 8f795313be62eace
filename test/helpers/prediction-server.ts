/** The prediction service's own methods, with a model that is small and untrained. */
import type { TestContext } from "node:test";
import { createImageFetcher } from "../../lib/images/image-url.ts";
import { createLogger } from "../../lib/log.ts";
import { createHealth } from "../../lib/rpc/health.ts";
import { createRpcServer, type ListeningServer } from "../../lib/rpc/server.ts";
import { createPrediction } from "../../services/prediction/handlers.ts";
import { predictionRoutes } from "../../services/prediction/routes.ts";
import { startServedModel } from "./served-model.ts";
import { tempFolder } from "./temp-folder.ts";

export async function startPredictionService(t: Pick<TestContext, "after">): Promise<ListeningServer> {
  const batching = { maxBatchSize: 8, maxDelayMs: 0, maxQueueLength: 100 };
  const model = await startServedModel(await tempFolder(t), batching);
  const deployment = { current: () => model, batching };
  const prediction = createPrediction({ deployment, modelName: "test", fetchImage: createImageFetcher([]) });
  const server = createRpcServer({
    services: [predictionRoutes(prediction)],
    health: createHealth(),
    logger: createLogger({ service: "test", level: "silent" }),
  });
  const listening = await server.listen({ host: "127.0.0.1", port: 0 });
  t.after(async () => {
    await listening.close(1_000);
    await model[Symbol.asyncDispose]();
  });
  return listening;
}

/** The prediction service's own methods, with a model that is small and untrained. What is answered is kept nowhere, and feedback refused. */
import type { TestContext } from "node:test";
import { AppError } from "../../lib/errors.ts";
import { createImageFetcher } from "../../lib/images/image-url.ts";
import { createLogger } from "../../lib/log.ts";
import { createHealth } from "../../lib/rpc/health.ts";
import { createRpcServer, type ListeningServer } from "../../lib/rpc/server.ts";
import type { BatchSettings } from "../../services/prediction/batch-settings.ts";
import { createPrediction } from "../../services/prediction/handlers.ts";
import { predictionRoutes } from "../../services/prediction/routes.ts";
import { startServing } from "./served-model.ts";
import { tempFolder } from "./temp-folder.ts";

export async function startPredictionService(
  t: Pick<TestContext, "after">,
  changes: Partial<BatchSettings> = {},
  fetchImage = createImageFetcher([]),
): Promise<ListeningServer> {
  const batching = { maxBatchSize: 8, maxDelayMs: 0, maxQueueLength: 100, maxWaitMs: 60_000, ...changes };
  const logger = createLogger({ service: "test", level: "silent" });
  const serving = await startServing(await tempFolder(t), { batching });
  const prediction = createPrediction({ ...serving, fetchImage, shareBatching: () => {}, logger });
  const feedback = {
    send: () => Promise.reject(new AppError("BROKER_UNAVAILABLE", "feedback is stored by a broker, and there is none")),
  };
  const server = createRpcServer({
    services: [predictionRoutes({ prediction, feedback, deployment: serving.deployment })],
    health: createHealth(),
    logger,
  });
  const listening = await server.listen({ host: "127.0.0.1", port: 0 });
  t.after(async () => {
    await listening.close(1_000);
    await serving[Symbol.asyncDispose]();
  });
  return listening;
}

/** The Open Inference Protocol over both its wires, as the prediction service serves it, with a model that is small and untrained. */
import type { TestContext } from "node:test";
import { createLogger } from "../../lib/log.ts";
import { championAlias } from "../../lib/registry/model-log.ts";
import { createHealth } from "../../lib/rpc/health.ts";
import { createRpcServer, type ListeningServer } from "../../lib/rpc/server.ts";
import { createOpenInference } from "../../services/prediction/open-inference/inference.ts";
import {
  createOpenInferenceRest,
  type OpenInferenceRestOptions,
} from "../../services/prediction/open-inference/rest.ts";
import { openInferenceRoutes } from "../../services/prediction/open-inference/routes.ts";
import { type ServingOptions, startServing, type TestServing } from "./served-model.ts";
import { tempFolder } from "./temp-folder.ts";

export interface OpenInferenceServer extends ListeningServer {
  /** What it answers with. */
  readonly serving: TestServing;
  /** Takes the champion away, as before the first one is live. */
  withdraw(): void;
  /** What the server does when it begins to close. */
  drain(): void;
}

export async function startOpenInference(
  t: TestContext,
  {
    aliases = {},
    shares = {},
    waitingBytes = 2 ** 40,
    ...options
  }: Pick<OpenInferenceRestOptions, "bodyTimeoutMs"> & Pick<ServingOptions, "aliases" | "shares" | "waitingBytes"> = {},
): Promise<OpenInferenceServer> {
  const batching = { maxBatchSize: 8, maxDelayMs: 0, maxQueueLength: 100, maxWaitMs: 60_000 };
  const serving = await startServing(await tempFolder(t), { batching, versions: 2, aliases, shares, waitingBytes });
  const health = createHealth();
  const inference = createOpenInference({ ...serving, isServing: () => health.serving });
  const logger = createLogger({ service: "test", level: "silent" });
  const server = createRpcServer({
    services: [openInferenceRoutes(inference)],
    fallback: createOpenInferenceRest({ inference, logger, ...options }),
    health,
    logger,
  });
  health.setAll(true);
  const listening = await server.listen({ host: "127.0.0.1", port: 0 });
  t.after(async () => {
    await listening.close(1_000);
    await serving[Symbol.asyncDispose]();
  });
  return { ...listening, serving, withdraw: () => serving.withdraw(championAlias), drain: health.drain };
}

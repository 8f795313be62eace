/** The server that `requests.ts` measures: a call with one span inside, and telemetry as the process's own variables say. */
import { PredictionService } from "../../gen/millrace/v1/prediction_pb.ts";
import { createLogger } from "../../lib/log.ts";
import { createHealth } from "../../lib/rpc/health.ts";
import { createRpcServer, rpcService } from "../../lib/rpc/server.ts";
import { startTelemetry } from "../../lib/telemetry/sdk.ts";
import { withSpan } from "../../lib/telemetry/spans.ts";

const service = "bench";
const logger = createLogger({ service, level: "error" });
await startTelemetry({ service, version: "0.0.0", traceShare: Number(process.argv[2]), logger });

/** The methods besides Predict are never called. */
const none = () => ({});
const predict = () =>
  withSpan("classify", { attributes: { "millrace.model.name": "m", "millrace.model.version": 1 } }, () => ({
    predictions: [{ label: "cat", classIndex: 1, probability: 1 }],
  }));
const implementation = { predict, predictBatch: none, getModel: none, updateBatching: none };
const server = createRpcServer({
  services: [rpcService(PredictionService, implementation)],
  health: createHealth(),
  logger,
});
const { address } = await server.listen({ host: "127.0.0.1", port: 0 });
process.on("message", () => {
  const { user, system } = process.cpuUsage();
  process.send?.(user + system);
});
process.once("disconnect", () => process.exit(0));
process.send?.(address);

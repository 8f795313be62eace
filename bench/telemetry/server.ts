/** The server that `requests.ts` measures: a call with one span inside, and telemetry as the process's own variables say. */
import { PredictionService } from "../../gen/millrace/v1/prediction_pb.ts";
import { createLogger } from "../../lib/log.ts";
import { createHealth } from "../../lib/rpc/health.ts";
import { createRpcServer } from "../../lib/rpc/server.ts";
import { startTelemetry } from "../../lib/telemetry/sdk.ts";
import { withSpan } from "../../lib/telemetry/spans.ts";
import { partialService } from "../../test/helpers/partial-service.ts";

const service = "bench";
const logger = createLogger({ service, level: "error" });
await startTelemetry({ service, version: "0.0.0", traceShare: Number(process.argv[2]), logger });

const settings = { attributes: { "millrace.model.name": "m", "millrace.model.version": 1 }, isLeaf: true };
const predict = () =>
  withSpan("classify", settings, () => ({
    predictions: [{ label: "cat", classIndex: 1, probability: 1 }],
  }));
const server = createRpcServer({
  services: [partialService(PredictionService, { predict })],
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

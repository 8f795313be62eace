import type { TestContext } from "node:test";
import type { ServiceImpl } from "@connectrpc/connect";
import { createMillraceClient, type MillraceClient, type MillraceClientOptions } from "../../../client/client.ts";
import { PredictionService } from "../../../gen/millrace/v1/prediction_pb.ts";
import { partialService } from "../../helpers/partial-service.ts";
import { type RunningServer, startServer } from "../rpc/server-fixture.ts";

type PredictionMethods = ServiceImpl<typeof PredictionService>;

/** A prediction service with the methods that a test says. */
export function startPredictionServer(t: TestContext, methods: Partial<PredictionMethods>): Promise<RunningServer> {
  return startServer(t, { services: [partialService(PredictionService, methods)] });
}

/** A client of one or several servers that is closed before they are. */
export function connectClient(
  servers: RunningServer | readonly RunningServer[],
  options: Omit<MillraceClientOptions, "baseUrl"> = {},
): MillraceClient {
  const all: readonly RunningServer[] = "url" in servers ? [servers] : servers;
  const millrace = createMillraceClient({ ...options, baseUrl: all.map(({ url }) => url) });
  for (const { closeLater } of all) closeLater(() => millrace.close());
  return millrace;
}

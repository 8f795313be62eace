import type { TestContext } from "node:test";
import type { ServiceImpl } from "@connectrpc/connect";
import { createMillraceClient, type MillraceClient, type MillraceClientOptions } from "../../../client/client.ts";
import { PredictionService } from "../../../gen/millrace/v1/prediction_pb.ts";
import { AppError } from "../../../lib/errors.ts";
import { rpcService } from "../../../lib/rpc/server.ts";
import { type RunningServer, startServer } from "../rpc/server-fixture.ts";

type PredictionMethods = ServiceImpl<typeof PredictionService>;

/** A prediction service whose methods a test says; the others refuse, which is a mistake of the test. */
export function startPredictionServer(t: TestContext, methods: Partial<PredictionMethods>): Promise<RunningServer> {
  const unused = () => {
    throw new AppError("INTERNAL", "this test does not call that");
  };
  const implementation = { predict: unused, predictBatch: unused, getModel: unused, updateBatching: unused };
  return startServer(t, { services: [rpcService(PredictionService, { ...implementation, ...methods })] });
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

import { create } from "@bufbuild/protobuf";
import { type DatasetProgress, DatasetService, DatasetSpecSchema } from "../../gen/millrace/v1/dataset_pb.ts";
import { type RpcService, rpcService } from "../../lib/rpc/server.ts";
import { streamUpdates } from "../../lib/rpc/stream-updates.ts";
import type { Ingestion } from "./handlers.ts";

/** The RPC surface of the ingestion service. */
export function datasetRoutes(ingestion: Ingestion): RpcService {
  return rpcService(DatasetService, {
    prepareDataset: (request, { signal: callerSignal }) =>
      streamUpdates(callerSignal, async (send, signal) => {
        const spec = request.spec ?? create(DatasetSpecSchema);
        const onProgress = (value: DatasetProgress) => send({ update: { case: "progress" as const, value } });
        const dataset = await ingestion.prepare(spec, { onProgress, signal });
        send({ update: { case: "dataset" as const, value: dataset } });
      }),
    getDataset: async ({ digest }) => ({ manifest: await ingestion.describe(digest) }),
  });
}

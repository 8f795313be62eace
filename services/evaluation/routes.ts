import { EvaluationService } from "../../gen/millrace/v1/evaluation_pb.ts";
import { type RpcService, rpcService } from "../../lib/rpc/server.ts";
import { streamUpdates } from "../../lib/rpc/stream-updates.ts";
import type { Evaluation } from "./handlers.ts";

/** The RPC surface of the evaluation service. A request measures; only a run's stage promotes. */
export function evaluationRoutes(evaluation: Evaluation): RpcService {
  return rpcService(EvaluationService, {
    evaluate: (request, { signal: callerSignal }) =>
      streamUpdates(callerSignal, async (send, signal) => {
        const version = await evaluation.find(request.modelName, request.version);
        const report = await evaluation.evaluate({
          version,
          datasetDigest: request.datasetDigest || version.lineage?.datasetDigest || "",
          onProgress: (done, total) => send({ update: { case: "progress" as const, value: { done, total } } }),
          signal,
        });
        send({ update: { case: "report" as const, value: report } });
      }),
  });
}

import { PredictionService } from "../../gen/millrace/v1/prediction_pb.ts";
import { type RpcService, rpcService } from "../../lib/rpc/server.ts";
import type { Deployment } from "./deployment.ts";
import type { Feedback } from "./feedback.ts";
import type { Prediction } from "./handlers.ts";
import { listServedModels, watchServedModels } from "./served-models.ts";

export interface PredictionRoutes {
  readonly prediction: Prediction;
  readonly feedback: Feedback;
  readonly deployment: Pick<Deployment, "log" | "live" | "models" | "changes">;
}

/** The RPC surface of the prediction service. */
export function predictionRoutes({ prediction, feedback, deployment }: PredictionRoutes): RpcService {
  return rpcService(PredictionService, {
    predict: (request, call) => prediction.predict(request, call),
    predictBatch: (request, call) => prediction.predictBatch(request, call),
    predictStream: (requests, { signal }) => prediction.predictStream(requests, signal),
    getModel: (request) => prediction.describe(request),
    listServedModels: () => ({ models: listServedModels(deployment) }),
    async *watchServedModels(_request, { signal }) {
      for await (const models of watchServedModels(deployment, signal)) yield { models };
    },
    sendFeedback: (request, { signal }) => feedback.send(request, signal),
    updateBatching: (changes) => prediction.updateBatching(changes),
  });
}

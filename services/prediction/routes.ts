import { PredictionService } from "../../gen/millrace/v1/prediction_pb.ts";
import { type RpcService, rpcService } from "../../lib/rpc/server.ts";
import type { Prediction } from "./handlers.ts";

/** The RPC surface of the prediction service. */
export function predictionRoutes(prediction: Prediction): RpcService {
  return rpcService(PredictionService, {
    predict: (request, { signal }) => prediction.predict(request, signal),
    predictBatch: (request, { signal }) => prediction.predictBatch(request, signal),
    getModel: () => prediction.describe(),
    updateBatching: (changes) => prediction.updateBatching(changes),
  });
}

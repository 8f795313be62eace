import { create } from "@bufbuild/protobuf";
import { TrainingService, TrainingSpecSchema } from "../../gen/millrace/v1/training_pb.ts";
import { eventIdFrom } from "../../lib/bus/cloud-event.ts";
import { networks } from "../../lib/nn/networks.ts";
import { defaultModelName } from "../../lib/registry/model-log.ts";
import { type RpcService, rpcService } from "../../lib/rpc/server.ts";
import { streamUpdates } from "../../lib/rpc/stream-updates.ts";
import type { Training } from "./handlers.ts";

/** The RPC surface of the training service. */
export function trainingRoutes(training: Training): RpcService {
  return rpcService(TrainingService, {
    train: (request, { signal: callerSignal }) =>
      streamUpdates(callerSignal, async (send, signal) => {
        // A request is no event: its model version is filed under an id of its own.
        const cause = { id: eventIdFrom(crypto.randomUUID(), "request"), originTraceparent: "" };
        const { model, summary } = await training.train(
          {
            datasetDigest: request.datasetDigest,
            spec: request.spec ?? create(TrainingSpecSchema),
            modelName: request.modelName || defaultModelName,
            origin: { runId: "", cause, signal },
            signal,
          },
          {
            onProgress: (value) => send({ update: { case: "progress" as const, value } }),
            onEpoch: (value) => send({ update: { case: "epoch" as const, value } }),
          },
        );
        send({ update: { case: "summary" as const, value: summary } });
        send({ update: { case: "model" as const, value: model } });
      }),
    listNetworks: () => ({
      networks: networks
        .map(({ name, description }) => ({ name, description }))
        .sort((a, b) => a.name.localeCompare(b.name)),
    }),
  });
}

import { create } from "@bufbuild/protobuf";
import { RunSpecSchema } from "../../gen/millrace/v1/events_pb.ts";
import { ModelRegistryService } from "../../gen/millrace/v1/model_pb.ts";
import { PipelineService } from "../../gen/millrace/v1/pipeline_pb.ts";
import { championAlias } from "../../lib/registry/model-log.ts";
import { type RpcService, rpcService } from "../../lib/rpc/server.ts";
import { streamUpdates } from "../../lib/rpc/stream-updates.ts";
import type { Pipeline } from "./handlers.ts";
import type { ModelCatalogue } from "./model-catalogue.ts";

const defaultPageSize = 20;

/** The RPC surface for runs. */
export function pipelineRoutes(pipeline: Pipeline): RpcService {
  return rpcService(PipelineService, {
    requestRun: ({ spec, runId }) => pipeline.request(spec ?? create(RunSpecSchema), runId || undefined),
    getRun: ({ runId }) => ({ run: pipeline.get(runId) }),
    listRuns: ({ pageSize }) => ({ runs: pipeline.list(pageSize || defaultPageSize) }),
    watchRun: ({ runId }, { signal: callerSignal }) =>
      streamUpdates(callerSignal, (send, signal) =>
        pipeline.watch(runId, (event, run) => send({ event, run }), signal),
      ),
    cancelRun: async ({ runId, reason }) => {
      await pipeline.cancel(runId, reason);
      return {};
    },
  });
}

/** The RPC surface for models. */
export function modelRegistryRoutes(catalogue: ModelCatalogue): RpcService {
  return rpcService(ModelRegistryService, {
    listModels: () => ({ models: catalogue.models() }),
    listModelVersions: ({ name }) => ({ versions: catalogue.versions(name) }),
    getModelVersion: ({ name, selector }) => ({ version: catalogue.version(name, selector) }),
    moveAlias: async (request) => ({
      move: await catalogue.moveAlias({ ...request, alias: request.alias || championAlias }),
    }),
    rollBack: async (request) => ({ move: await catalogue.rollBack(request) }),
    listAliasMoves: ({ name }) => ({ moves: catalogue.moves(name) }),
  });
}

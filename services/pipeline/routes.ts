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
    requestRun: ({ spec, runId }, { signal }) =>
      pipeline.request(spec ?? create(RunSpecSchema), runId || undefined, signal),
    getRun: async ({ runId }, { signal }) => ({ run: await pipeline.get(runId, signal) }),
    listRuns: async ({ pageSize }, { signal }) => ({ runs: await pipeline.list(pageSize || defaultPageSize, signal) }),
    watchRun: ({ runId }, { signal: callerSignal }) =>
      streamUpdates(callerSignal, (send, signal) =>
        pipeline.watch(runId, (event, run) => send({ event, run }), signal),
      ),
    cancelRun: async ({ runId, reason }, { signal }) => {
      await pipeline.cancel(runId, reason, signal);
      return {};
    },
  });
}

/** The RPC surface for models. */
export function modelRegistryRoutes(catalogue: ModelCatalogue): RpcService {
  return rpcService(ModelRegistryService, {
    listModels: async (_, { signal }) => ({ models: await catalogue.models(signal) }),
    listModelVersions: async ({ name }, { signal }) => ({ versions: await catalogue.versions(name, signal) }),
    getModelVersion: async ({ name, selector }, { signal }) => ({
      version: await catalogue.version(name, selector, signal),
    }),
    moveAlias: async (request, { signal }) => ({
      move: await catalogue.moveAlias({ ...request, alias: request.alias || championAlias }, signal),
    }),
    rollBack: async (request, { signal }) => ({ move: await catalogue.rollBack(request, signal) }),
    listAliasMoves: async ({ name }, { signal }) => ({ moves: await catalogue.moves(name, signal) }),
  });
}

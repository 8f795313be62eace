/** The servers that `calls.ts` compares: the same handler behind each. Run as a process, tells its address and then its processor time. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { createConnectRouter } from "@connectrpc/connect";
import { Server, ServerCredentials, type UntypedServiceImplementation } from "@grpc/grpc-js";
import {
  PredictionService,
  type PredictRequest,
  PredictRequestSchema,
  type PredictResponse,
  PredictResponseSchema,
} from "../../gen/millrace/v1/prediction_pb.ts";
import { createLogger } from "../../lib/log.ts";
import { createAdapter } from "../../lib/rpc/adapter.ts";
import { createHealth } from "../../lib/rpc/health.ts";
import { createPort } from "../../lib/rpc/port.ts";
import { createRpcServer } from "../../lib/rpc/server.ts";
import { partialService } from "../../test/helpers/partial-service.ts";

export const serverKinds = ["Millrace", "grpc-js", "connect-node"] as const;
export type ServerKind = (typeof serverKinds)[number];

const host = "127.0.0.1";
const logger = createLogger({ service: "bench", level: "warn" });

function predict({ input }: PredictRequest): PredictResponse {
  return create(PredictResponseSchema, {
    predictions: [{ label: "cat", classIndex: input.value?.length ?? 0, probability: 1 }],
  });
}

const starters: Readonly<Record<ServerKind, () => Promise<string>>> = {
  /** As every service has it: validation, spans (to nobody) and logs included. */
  async Millrace() {
    const service = partialService(PredictionService, { predict });
    const server = createRpcServer({ services: [service], health: createHealth(), logger });
    return (await server.listen({ host, port: 0 })).address;
  },
  async "grpc-js"() {
    const server = new Server();
    server.addService(
      {
        predict: {
          path: `/${PredictionService.typeName}/Predict`,
          requestStream: false,
          responseStream: false,
          requestDeserialize: (bytes: Buffer) => fromBinary(PredictRequestSchema, bytes),
          requestSerialize: (message: PredictRequest) => Buffer.from(toBinary(PredictRequestSchema, message)),
          responseSerialize: (message: PredictResponse) => Buffer.from(toBinary(PredictResponseSchema, message)),
          responseDeserialize: (bytes: Buffer) => fromBinary(PredictResponseSchema, bytes),
        },
      },
      {
        predict: ({ request }: { request: PredictRequest }, done: (error: null, response: PredictResponse) => void) =>
          done(null, predict(request)),
      } as unknown as UntypedServiceImplementation,
    );
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync(`${host}:0`, ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      );
    });
    return `${host}:${port}`;
  },
  /** The router alone, on our port: neither validation, nor spans, nor logs. */
  async "connect-node"() {
    const router = createConnectRouter();
    router.service(PredictionService, { predict });
    const answer = createAdapter(router, {
      logger,
      defaultDeadlineMs: 60_000,
      maxDeadlineMs: 60_000,
      fallback: (_request, response) => {
        response.writeHead(404);
        response.end();
      },
    });
    const limits = {
      maxConcurrentStreams: 256,
      maxSessionMemoryMb: 100,
      windowBytes: 256 * 1024,
      openingTimeoutMs: 10_000,
      keepAliveMs: 75_000,
      maxConnectionAgeMs: 0,
    };
    const port = createPort({ takeStream: () => false, answer }, limits);
    return `${host}:${(await port.listen(host, 0)).port}`;
  },
};

const kind = serverKinds.find((name) => name === process.argv[2]);
if (process.send !== undefined && kind !== undefined) {
  process.on("message", () => {
    const { user, system } = process.cpuUsage();
    process.send?.(user + system);
  });
  process.once("disconnect", () => process.exit(0));
  process.send(await starters[kind]());
}

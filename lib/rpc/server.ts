import { setMaxListeners } from "node:events";
import type { DescMethod, DescMethodUnary, DescService } from "@bufbuild/protobuf";
import {
  type ConnectRouter,
  type ConnectRouterOptions,
  createConnectRouter,
  type Interceptor,
  type ServiceImpl,
} from "@connectrpc/connect";
import { compressionGzip } from "@connectrpc/connect-node";
import { Health as HealthService } from "../../gen/grpc/health/v1/health_pb.ts";
import { AppError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { type AccessCheck, createAccessCheck, refuseAccess } from "./access.ts";
import { createAdapter } from "./adapter.ts";
import { createCors } from "./cors.ts";
import { longestTimerMs } from "./deadline.ts";
import type { Health } from "./health.ts";
import { observeCalls } from "./observe.ts";
import {
  createPort,
  type HttpHandler,
  type HttpRequest,
  type HttpResponse,
  type PortLimits,
  type StreamHandler,
  type TlsIdentity,
} from "./port.ts";
import { answerProbe } from "./probes.ts";
import { registerReflection } from "./reflection.ts";
import { createUnaryGrpc, type UnaryMethod } from "./unary-grpc.ts";
import { checkRequests, createMessageCheck, type MessageCheck } from "./validation.ts";

export interface RpcLimits extends PortLimits {
  /** Largest request message in bytes, also after decompression. */
  readonly maxMessageBytes: number;
  /** Deadline of a unary call whose client sets none. Streams have none: they may last for hours. */
  readonly defaultDeadlineMs: number;
  /** What a longer deadline is cut to, up to 2^31 - 1. */
  readonly maxDeadlineMs: number;
}

const defaultLimits: RpcLimits = {
  maxMessageBytes: 8 * 1024 * 1024,
  defaultDeadlineMs: 60_000,
  maxDeadlineMs: longestTimerMs,
  maxConcurrentStreams: 256,
  // Node's 10 MB answers busy but honest clients with ENHANCE_YOUR_CALM.
  maxSessionMemoryMb: 100,
  windowBytes: 256 * 1024,
  openingTimeoutMs: 10_000,
  keepAliveMs: 75_000,
  maxConnectionAgeMs: 0,
};

/** A service and what implements it. Made by {@link rpcService}. */
export interface RpcService {
  readonly service: DescService;
  readonly unaryMethods: readonly UnaryMethod[];
  register(router: ConnectRouter, options: Partial<ConnectRouterOptions>): void;
}

/** Joins a service to its implementation; a method that is missing does not compile. */
export function rpcService<Desc extends DescService>(service: Desc, implementation: ServiceImpl<Desc>): RpcService {
  return {
    service,
    unaryMethods: service.methods
      .filter(isUnary)
      .map((method) => ({ method, implementation: functionOf(implementation, method) })),
    register: (router, options) => router.service(service, implementation, options),
  };
}

function isUnary(method: DescMethod): method is DescMethodUnary {
  return method.methodKind === "unary";
}

/** The type of an implementation has a function for each method of its service, under the method's local name. */
function functionOf(implementation: object, { localName }: DescMethodUnary): UnaryMethod["implementation"] {
  const found = (implementation as Record<string, UnaryMethod["implementation"]>)[localName];
  if (found === undefined) throw new AppError("INTERNAL", `method ${localName} has no implementation`);
  return found.bind(implementation);
}

export interface RpcServerOptions {
  readonly services: readonly RpcService[];
  /** The server registers its services here; the caller says when they serve. */
  readonly health: Health;
  readonly logger: Logger;
  readonly limits?: Partial<RpcLimits>;
  /** Origins of web pages that may call; none by default. */
  readonly corsOrigins?: readonly string[];
  /** Speaks TLS, and only that. Default: clear text. */
  readonly tls?: TlsIdentity;
  /** Callers must send one of these as a bearer token; only health is open to all. Default: none, everybody may call. */
  readonly accessTokens?: readonly string[];
  /** What `GET /metrics` answers. Without it there is nothing at that path. */
  readonly metricsText?: () => Promise<string>;
  /** Takes every path that is neither an RPC nor a probe, such as a web page. 404 by default. */
  readonly fallback?: HttpHandler;
}

export interface RpcServer {
  /** Port 0 takes a free one. Throws CONFIGURATION_INVALID if the address cannot be listened on. */
  listen(address: { readonly host: string; readonly port: number }): Promise<ListeningServer>;
}

export interface ListeningServer {
  /** Such as http://127.0.0.1:7404. */
  readonly url: string;
  /** Shows another certificate from now on. Only over TLS. */
  setIdentity(tls: TlsIdentity): void;
  /** host:port, the form that gRPC clients take. */
  readonly address: string;
  readonly port: number;
  /**
   * Health says NOT_SERVING, streams end with SHUTTING_DOWN, unary calls may finish; what is left after `graceMs`
   * (10 s by default) is cut. Resolves when no connection is open.
   */
  close(graceMs?: number): Promise<void>;
}

/**
 * One port, in clear text or over TLS, for Connect, gRPC, gRPC-Web and JSON over HTTP/1.1 and HTTP/2, with health, reflection, validation
 * of requests, deadlines, traces, and `GET /healthz` (the process answers), `GET /readyz` (it serves) and `GET /metrics`.
 */
export function createRpcServer(options: RpcServerOptions): RpcServer {
  const { services, health } = options;
  const limits = { ...defaultLimits, ...options.limits };
  const draining = new AbortController();
  // Every open stream listens: that is no leak.
  setMaxListeners(0, draining.signal);
  health.register(services.map(({ service }) => service));
  const check = createMessageCheck();
  const methods = services.flatMap(({ unaryMethods }) => unaryMethods);
  const mayAccess = createAccessCheck(options.accessTokens ?? []);
  const takeUnary = createUnaryGrpc({ methods, check, logger: options.logger, ...limits });
  const takeStream: StreamHandler = (stream, headers) =>
    mayAccess(headers[":path"] ?? "", headers) && takeUnary(stream, headers);
  const answer = createHandler(options, { limits, check, mayAccess, draining: draining.signal });
  const port = createPort({ takeStream, answer }, limits, options.tls);
  const scheme = options.tls === undefined ? "http" : "https";

  return {
    async listen({ host, port: wanted }) {
      const bound = await port.listen(host, wanted).catch((cause: unknown) => {
        const reason = cause instanceof Error ? cause.message : String(cause);
        throw new AppError("CONFIGURATION_INVALID", `cannot listen on ${host}:${wanted}: ${reason}`, { cause });
      });
      const address = `${host.includes(":") ? `[${host}]` : host}:${bound.port}`;
      return {
        address,
        url: `${scheme}://${address}`,
        setIdentity: port.setIdentity,
        port: bound.port,
        async close(graceMs = 10_000) {
          health.drain();
          draining.abort(new AppError("SHUTTING_DOWN", "the server is shutting down; call again"));
          await port.close(graceMs);
        },
      };
    },
  };
}

interface Shared {
  readonly limits: RpcLimits;
  readonly check: MessageCheck;
  readonly mayAccess: AccessCheck;
  readonly draining: AbortSignal;
}

function createHandler(options: RpcServerOptions, { limits, check, mayAccess, draining }: Shared): HttpHandler {
  const { health, logger, metricsText, corsOrigins = [], fallback = notFound } = options;
  const router = createConnectRouter({
    readMaxBytes: limits.maxMessageBytes,
    // Requests may be compressed. Answers are not: brotli at its default quality takes seconds of CPU for one image.
    acceptCompression: [compressionGzip],
    compressMinBytes: Number.MAX_SAFE_INTEGER,
  });
  registerAll(router, options, { check, draining });
  const answerPreflight = createCors(corsOrigins);
  const handleRpc = createAdapter(router, {
    logger,
    defaultDeadlineMs: limits.defaultDeadlineMs,
    maxDeadlineMs: limits.maxDeadlineMs,
    fallback: (request, response) => {
      if (!answerProbe(request, response, { health, metricsText })) fallback(request, response);
    },
  });
  return (request, response) => {
    if (answerPreflight(request, response)) return;
    if (mayAccess(pathOf(request), request.headers)) handleRpc(request, response);
    else refuseAccess(response);
  };
}

function registerAll(
  router: ConnectRouter,
  { services, health, logger }: RpcServerOptions,
  { check, draining }: Pick<Shared, "check" | "draining">,
): void {
  const interceptors: Interceptor[] = [observeCalls(logger, draining), checkRequests(check)];
  for (const { register } of services) register(router, { interceptors });
  // Probes come every second and would bury what is worth seeing: these are neither traced nor logged.
  const ends = { shutdownSignal: draining };
  router.service(HealthService, health.implementation, ends);
  const described = [...services.map(({ service }) => service), HealthService];
  registerReflection(router, described, ends);
}

function pathOf({ url = "" }: HttpRequest): string {
  const [path = ""] = url.split("?", 1);
  return path;
}

function notFound(_request: HttpRequest, response: HttpResponse): void {
  response.writeHead(404, { "content-type": "text/plain" });
  response.end("not found\n");
}

import type { Client } from "@connectrpc/connect";
import { createTransport as defaultTransport } from "#transport";
import { Health } from "../gen/grpc/health/v1/health_pb.ts";
import { GRPCInferenceService } from "../gen/inference/open_inference_pb.ts";
import { DatasetService } from "../gen/millrace/v1/dataset_pb.ts";
import { EvaluationService } from "../gen/millrace/v1/evaluation_pb.ts";
import { ModelRegistryService } from "../gen/millrace/v1/model_pb.ts";
import { PipelineService } from "../gen/millrace/v1/pipeline_pb.ts";
import { PredictionService } from "../gen/millrace/v1/prediction_pb.ts";
import { TrainingService } from "../gen/millrace/v1/training_pb.ts";
import { balanceCalls } from "./balancing.ts";
import {
  type ClientTls,
  type ClientTransport,
  type HeadersSource,
  type Layer,
  sendOver,
  transportFromSend,
} from "./call.ts";
import { retryCalls } from "./retries.ts";
import { createServiceClient } from "./service-client.ts";

export { reasonOf, retryDelayMsOf } from "./errors.ts";
export { type WaitOptions, waitUntilServing } from "./waiting.ts";

const services = {
  predictions: PredictionService,
  pipeline: PipelineService,
  registry: ModelRegistryService,
  datasets: DatasetService,
  training: TrainingService,
  evaluation: EvaluationService,
  openInference: GRPCInferenceService,
  health: Health,
} as const;

export interface MillraceClientOptions {
  /** Where the services answer, such as "http://127.0.0.1:7404"; several are called in turn, and one that fails is left out for a while. */
  readonly baseUrl: string | readonly string[];
  /** Time that a unary call may take, retries included, in milliseconds: 30 s by default. A call's own `timeoutMs` counts before it. Streams have none but their own. */
  readonly deadlineMs?: number;
  /** Most tries after the first, of methods that may be called twice: 3 by default. */
  readonly retries?: number;
  /** Headers of every call, such as `authorization`. */
  readonly headers?: HeadersSource;
  /** Traces calls: `traceCalls` of "@millrace/client/tracing". */
  readonly tracing?: Layer;
  /** Certificates for `https:`, in Node, for the transport that is the default there. Browsers have their own. */
  readonly tls?: ClientTls;
  /** Another protocol: any transport of Connect. By default gRPC in Node and Connect in browsers. */
  readonly createTransport?: (baseUrl: string) => ClientTransport;
}

/** A client of each service, with a function for each method. */
export type MillraceClient = { readonly [Name in keyof typeof services]: Client<(typeof services)[Name]> } & {
  /** Ends calls under way and frees the connections. A connection without calls does not keep Node from ending. */
  close(): void;
};

/**
 * A typed client of Millrace, for Node and browsers. It opens no connection before the first call. Failed calls reject with Connect's
 * ConnectError: {@link reasonOf} says why, in Millrace's stable words.
 *
 * The services have an address each, unless something in front of them sends each path to its service: a client that calls two of them is two clients.
 *
 * @example
 * const millrace = createMillraceClient({ baseUrl: "http://127.0.0.1:7404" });
 * const { predictions } = await millrace.predictions.predict({ input: { case: "image", value: bytes }, topK: 3 });
 */
export function createMillraceClient(options: MillraceClientOptions): MillraceClient {
  const { baseUrl, deadlineMs = 30_000, retries = 3, headers, tracing, tls } = options;
  const { createTransport = (url) => defaultTransport(url, tls) } = options;
  const transports = new Map(checkedBaseUrls(baseUrl).map((url) => [url, createTransport(url)]));
  const addresses = [...transports].map(([baseUrl, transport]) => ({
    baseUrl,
    rpcSystem: transport.rpcSystem ?? "connectrpc",
    send: sendOver(transport),
  }));
  // The first is the outermost: a span covers a call with its retries, and each of these has its own address.
  const layers = [addDefaults(deadlineMs, headers), ...(tracing ? [tracing] : []), retryCalls(retries)];
  const send = layers.reduceRight((next, layer) => layer(next), balanceCalls(addresses));
  const transport = transportFromSend(send);
  const clients = Object.entries(services).map(([name, service]) => [name, createServiceClient(service, transport)]);
  const close = () => {
    for (const each of transports.values()) each.close?.();
  };
  // The clients are made from the table that their types are derived from.
  return { ...(Object.fromEntries(clients) as Omit<MillraceClient, "close">), close };
}

function checkedBaseUrls(baseUrl: string | readonly string[]): readonly string[] {
  const baseUrls = typeof baseUrl === "string" ? [baseUrl] : baseUrl;
  const isUsable = (url: string) => URL.canParse(url) && /^https?:$/.test(new URL(url).protocol);
  for (const url of baseUrls.length === 0 ? [""] : baseUrls) {
    if (!isUsable(url)) throw new TypeError(`baseUrl "${url}" is no URL such as http://127.0.0.1:7404`);
  }
  return baseUrls;
}

function addDefaults(deadlineMs: number, defaultHeaders: HeadersSource | undefined): Layer {
  return (next) => (call) => {
    const headers = new Headers(defaultHeaders);
    for (const [name, value] of new Headers(call.headers)) headers.set(name, value);
    const timeoutMs = call.timeoutMs ?? (call.kind === "unary" ? deadlineMs : undefined);
    return next({ ...call, headers, timeoutMs });
  };
}

/**
 * The Open Inference Protocol over HTTP with JSON, and with the extension for tensors in binary
 * (https://github.com/kserve/open-inference-protocol, https://github.com/triton-inference-server/server, docs/protocol).
 */
import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { RetryInfoSchema } from "../../../gen/google/rpc/error_details_pb.ts";
import { GRPCInferenceService } from "../../../gen/inference/open_inference_pb.ts";
import { orAborted } from "../../../lib/abort.ts";
import { AppError } from "../../../lib/errors.ts";
import type { Logger } from "../../../lib/log.ts";
import { inCall } from "../../../lib/rpc/observe.ts";
import { ObservedCall } from "../../../lib/rpc/observed-call.ts";
import type { HttpHandler, HttpRequest, HttpResponse } from "../../../lib/rpc/port.ts";
import { outgoingError } from "../../../lib/rpc/server-errors.ts";
import { type OpenInference, serverMetadata } from "./inference.ts";
import type { Repository } from "./repository.ts";
import { type Body, readBody } from "./request-body.ts";
import { jsonReply, parse, type Reply, repositorySchema, requestSchema, tensorReply, tensorsOf } from "./rest-body.ts";
import type { Tensor } from "./tensor.ts";

const httpStatuses: Readonly<Partial<Record<Code, number>>> = {
  [Code.Canceled]: 499,
  [Code.DeadlineExceeded]: 504,
  [Code.FailedPrecondition]: 400,
  [Code.InvalidArgument]: 400,
  [Code.NotFound]: 404,
  [Code.ResourceExhausted]: 429,
  [Code.Unavailable]: 503,
};

/** Time for a request to come whole, and for an inference whose request names none, as for calls over gRPC. */
const defaultTimeoutMs = 60_000;

export interface OpenInferenceRestOptions {
  readonly inference: OpenInference;
  readonly logger: Logger;
  /** Origins of web pages that may send requests beside the server's own; "*" for all. Default: none. */
  readonly corsOrigins?: readonly string[];
  /** Time for a request to come whole, in ms. Default: 60,000. */
  readonly bodyTimeoutMs?: number;
}

/** Serves the paths below /v2; 404 for all others. Errors are `{"error": "..."}`. */
export function createOpenInferenceRest({
  inference,
  logger,
  corsOrigins = [],
  bodyTimeoutMs = defaultTimeoutMs,
}: OpenInferenceRestOptions): HttpHandler {
  return (request, response) => {
    if (isForeign(request, corsOrigins)) {
      const error = `pages of ${request.headers.origin} may not call; MILLRACE_CORS_ORIGINS names those that may`;
      send(response, jsonReply(403, { error }));
      return;
    }
    const ending = new AbortController();
    response.once("close", () => ending.abort(new AppError("CANCELLED", "the client went away")));
    const { signal } = ending;
    void answer(request, { inference, logger, bodyTimeoutMs, signal }).then((reply) => {
      if (response.headersSent || response.destroyed) return;
      if (!request.complete) hangUpAfter(request, response);
      send(response, reply);
    });
  };
}

/** A browser asks nobody before it sends a plain POST for any page that is open in it. */
function isForeign({ method, headers }: HttpRequest, allowed: readonly string[]): boolean {
  const { origin, host = headers[":authority"] } = headers;
  if (method !== "POST" || origin === undefined || allowed.includes(origin) || allowed.includes("*")) return false;
  return !URL.canParse(origin) || new URL(origin).host !== host;
}

/** How long a client over HTTP/1.1 may still send what nobody wants. */
const lingerMs = 5_000;

/**
 * What may still come of the request is thrown away. A socket that is closed with bytes in it that were not read is reset, which takes the answer
 * from a client that is still writing.
 */
function hangUpAfter(request: HttpRequest, response: HttpResponse): void {
  // Taken now: a response that is finished has no socket any more.
  const { socket } = response;
  response.once("finish", () => {
    if ("stream" in response) return response.stream.close();
    socket?.end();
    request.resume();
    const timer = setTimeout(() => socket?.destroy(), lingerMs);
    socket?.once("close", () => clearTimeout(timer));
  });
}

interface Answering extends Required<Pick<OpenInferenceRestOptions, "inference" | "logger" | "bodyTimeoutMs">> {
  /** Aborts when the client has gone. */
  readonly signal: AbortSignal;
}

/** Never rejects: what goes wrong is in the reply. */
async function answer(request: HttpRequest, answering: Answering): Promise<Reply> {
  const { inference, logger, bodyTimeoutMs, signal } = answering;
  try {
    const [path = ""] = (request.url ?? "").split("?", 1);
    const route = routeOf(request.method ?? "", path);
    const body = () => bodyInTime(request, bodyTimeoutMs);
    if (route.action !== "infer") return await answerQuestion(route, body, inference);
    const call = new ObservedCall(
      { method: GRPCInferenceService.method.modelInfer, protocol: "rest", headers: request.headers },
      logger,
    );
    try {
      const reply = await inCall(call, signal, async () => infer(route, await body(), answering));
      call.succeed();
      return reply;
    } catch (thrown) {
      throw call.fail(thrown, signal);
    }
  } catch (thrown) {
    // What an inference fails with was logged with its call.
    if (!(thrown instanceof ConnectError) && AppError.from(thrown).code === "INTERNAL") {
      logger.error({ event: "rest.failed", error: thrown }, `${request.method} ${request.url} failed`);
    }
    return errorReply(outgoingError(thrown, signal, () => undefined));
  }
}

function errorReply(error: ConnectError): Reply {
  const { cause } = error;
  // HTTP tells apart what is one code in the other protocols.
  const exact = cause instanceof AppError ? cause.details.httpStatus : undefined;
  const status = exact === undefined ? (httpStatuses[error.code] ?? 500) : Number(exact);
  const reply = jsonReply(status, { error: error.rawMessage });
  const [retry] = error.findDetails(RetryInfoSchema);
  if (retry?.retryDelay === undefined) return reply;
  const seconds = Math.ceil(durationMs(retry.retryDelay) / 1_000);
  return { ...reply, headers: { ...reply.headers, "retry-after": String(seconds) } };
}

/** A client that is slow to say what it wants holds memory meanwhile. */
async function bodyInTime(request: HttpRequest, timeoutMs: number): Promise<Body> {
  const expired = new AbortController();
  const late = new AppError("DEADLINE_EXCEEDED", `the request had not come whole after ${timeoutMs} ms`);
  const timer = setTimeout(() => expired.abort(late), timeoutMs);
  return orAborted(readBody(request), expired.signal).finally(() => clearTimeout(timer));
}

async function answerQuestion(route: Route, body: () => Promise<Body>, inference: OpenInference): Promise<Reply> {
  const { action, name, version } = route;
  const readiness = (ready: boolean, about = {}): Reply => jsonReply(ready ? 200 : 503, { ...about, ready });
  switch (action) {
    case "server metadata":
      return jsonReply(200, serverMetadata);
    case "server live":
      return jsonReply(200, { live: true });
    case "server ready":
      return readiness(inference.ready());
    case "model ready":
      return readiness(inference.modelReady(name, version), { name });
    case "model metadata":
      return jsonReply(200, await inference.metadata(name, version));
    default:
      return askRepository(route, body, inference.repository);
  }
}

async function askRepository(
  { action, name }: Route,
  body: () => Promise<Body>,
  repository: Repository,
): Promise<Reply> {
  const { json } = await body();
  const { ready, parameters } = parse(json.length === 0 ? Buffer.from("{}") : json, repositorySchema);
  if (action === "repository index") return jsonReply(200, repository.index(ready));
  if (action === "load") await repository.load(name, parameters);
  else repository.unload(name, parameters);
  return jsonReply(200, {});
}

async function infer(
  { name: modelName, version: modelVersion }: Route,
  { json, binary }: Body,
  { inference, signal }: Answering,
): Promise<Reply> {
  const { id, inputs, outputs, parameters } = parse(json, requestSchema);
  const wanted = {
    modelName,
    modelVersion,
    inputs: tensorsOf(inputs, binary),
    outputs: outputs.map(({ name }) => name),
    routingKey: String(parameters.routing_key ?? ""),
    priority: parameters.priority,
    timeoutMs: parameters.timeout === undefined ? defaultTimeoutMs : parameters.timeout / 1_000,
  };
  const result = await inference.infer(wanted, { signal });
  const isBinary = ({ name }: Tensor): boolean =>
    outputs.find((output) => output.name === name)?.parameters.binary_data ?? parameters.binary_data_output ?? false;
  const head = {
    model_name: result.modelName,
    model_version: result.modelVersion,
    ...(id !== undefined && { id }),
    parameters: { prediction_ids: result.predictionIds },
  };
  return tensorReply(head, { outputs: result.outputs, isBinary });
}

interface Route {
  readonly action:
    | "server metadata"
    | "server live"
    | "server ready"
    | "model metadata"
    | "model ready"
    | "infer"
    | "repository index"
    | "load"
    | "unload";
  /** Empty where the server is asked. */
  readonly name: string;
  readonly version: string;
}

function routeOf(method: string, path: string): Route {
  const server = { name: "", version: "" };
  if (method === "GET" && path === "/v2") return { action: "server metadata", ...server };
  if (method === "GET" && path === "/v2/health/live") return { action: "server live", ...server };
  if (method === "GET" && path === "/v2/health/ready") return { action: "server ready", ...server };
  if (method === "POST" && path === "/v2/repository/index") return { action: "repository index", ...server };
  const [, changed, change] = /^\/v2\/repository\/models\/([^/]+)\/(load|unload)$/.exec(path) ?? [];
  if (method === "POST" && (change === "load" || change === "unload")) {
    return { action: change, name: decodedName(changed), version: "" };
  }
  const [, model, version = "", action = ""] =
    /^\/v2\/models\/([^/]+)(?:\/versions\/([^/]+))?(?:\/(ready|infer))?$/.exec(path) ?? [];
  const name = decodedName(model);
  if (model !== undefined && method === "GET" && action === "") return { action: "model metadata", name, version };
  if (model !== undefined && method === "GET" && action === "ready") return { action: "model ready", name, version };
  if (model !== undefined && method === "POST" && action === "infer") return { action, name, version };
  throw new AppError("PATH_NOT_FOUND", `there is nothing at ${method} ${path}`);
}

/** A name that is not percent-encoded as it should be is taken as it stands: no model has it. */
function decodedName(text = ""): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function send(response: HttpResponse, { status, headers, body }: Reply): void {
  response.writeHead(status, headers);
  response.end(body);
}

/**
 * The Open Inference Protocol over HTTP with JSON, and with the extension for tensors in binary
 * (https://github.com/kserve/open-inference-protocol, https://github.com/triton-inference-server/server, docs/protocol).
 */
import { Code } from "@connectrpc/connect";
import { z } from "zod";
import { GRPCInferenceService } from "../../../gen/inference/open_inference_pb.ts";
import { AppError } from "../../../lib/errors.ts";
import type { Logger } from "../../../lib/log.ts";
import { inCall } from "../../../lib/rpc/observe.ts";
import { observeCall } from "../../../lib/rpc/observed-call.ts";
import type { HttpHandler, HttpRequest, HttpResponse } from "../../../lib/rpc/port.ts";
import { outgoingError } from "../../../lib/rpc/server-errors.ts";
import { type OpenInference, serverMetadata } from "./inference.ts";
import type { Repository } from "./repository.ts";
import { badInput, checkedTensor, rawFromTensor, type Tensor, tensorFromRaw, unsupported } from "./tensor.ts";

/** Largest request body: as much as a message over gRPC. */
const maxBodyBytes = 8 * 1024 * 1024;

/** Length of the JSON that goes before binary tensors, in a request as in an answer. */
const jsonLengthHeader = "inference-header-content-length";

const httpStatuses: Readonly<Partial<Record<Code, number>>> = {
  [Code.Canceled]: 499,
  [Code.DeadlineExceeded]: 504,
  [Code.FailedPrecondition]: 400,
  [Code.InvalidArgument]: 400,
  [Code.NotFound]: 404,
  [Code.ResourceExhausted]: 429,
  [Code.Unavailable]: 503,
};

/** An answer before it is sent. */
interface Reply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array | string;
}

/** Serves the paths below /v2; 404 for all others. Errors are `{"error": "..."}`. */
export function createOpenInferenceRest(inference: OpenInference, logger: Logger): HttpHandler {
  return (request, response) => {
    const leaving = new AbortController();
    response.once("close", () => leaving.abort(new AppError("CANCELLED", "the client went away")));
    void answer(request, { inference, logger, signal: leaving.signal }).then((reply) => {
      if (!response.headersSent && !response.destroyed) send(response, reply);
    });
  };
}

interface Answering {
  readonly inference: OpenInference;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/** Never rejects: what goes wrong is in the reply. */
async function answer(request: HttpRequest, answering: Answering): Promise<Reply> {
  const { inference, logger, signal } = answering;
  try {
    const [path = ""] = (request.url ?? "").split("?", 1);
    const route = routeOf(request.method ?? "", path);
    if (route.action !== "infer") return await answerQuestion(route, request, inference);
    const call = observeCall(
      { method: GRPCInferenceService.method.modelInfer, protocol: "rest", headers: request.headers },
      logger,
    );
    try {
      const reply = await inCall(call, signal, async () => infer(route, await readBody(request), answering));
      call.succeed();
      return reply;
    } catch (thrown) {
      throw call.fail(thrown, signal);
    }
  } catch (thrown) {
    const { code, rawMessage } = outgoingError(thrown, signal, undefined);
    return jsonReply(httpStatuses[code] ?? 500, { error: rawMessage });
  }
}

async function answerQuestion(route: Route, request: HttpRequest, inference: OpenInference): Promise<Reply> {
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
      return askRepository(route, request, inference.repository);
  }
}

async function askRepository({ action, name }: Route, request: HttpRequest, repository: Repository): Promise<Reply> {
  const { json } = await readBody(request);
  const { ready, parameters } = parse(json.length === 0 ? Buffer.from("{}") : json, repositorySchema);
  const version = String(parameters.version ?? "");
  if (action === "repository index") return jsonReply(200, repository.index(ready));
  if (action === "load") await repository.load(name, version);
  else repository.unload(name, version);
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
  };
  const result = await inference.infer(wanted, signal);
  const isBinary = ({ name }: Tensor): boolean =>
    outputs.find((output) => output.name === name)?.parameters.binary_data ?? parameters.binary_data_output ?? false;
  const head = { model_name: result.modelName, model_version: result.modelVersion, ...(id !== undefined && { id }) };
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

const parameters = z
  .looseObject({
    binary_data_size: z.number().int().min(0).optional(),
    binary_data: z.boolean().optional(),
    binary_data_output: z.boolean().optional(),
    routing_key: z.union([z.string(), z.number()]).optional(),
  })
  .default({});

const requestSchema = z.object({
  id: z.string().optional(),
  parameters,
  inputs: z.array(
    z.object({
      name: z.string(),
      datatype: z.string(),
      shape: z.array(z.number()),
      parameters,
      data: z.unknown().optional(),
    }),
  ),
  outputs: z.array(z.object({ name: z.string(), parameters })).default([]),
});

type JsonInput = z.output<typeof requestSchema>["inputs"][number];

const repositorySchema = z.object({
  ready: z.boolean().default(false),
  parameters: z.looseObject({ version: z.union([z.string(), z.number()]).optional() }).default({}),
});

function parse<Schema extends z.ZodType>(json: Buffer, schema: Schema): z.output<Schema> {
  let value: unknown;
  try {
    value = JSON.parse(json.toString("utf8"));
  } catch (cause) {
    throw new AppError("INVALID_REQUEST", "the request is no JSON", { cause });
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new AppError("INVALID_REQUEST", `${issue?.path.join(".") || "the request"}: ${issue?.message}`);
}

/** Inputs in their order; the binary ones lie one behind the other. */
function tensorsOf(inputs: readonly JsonInput[], binary: Buffer): Tensor[] {
  let at = 0;
  const tensors = inputs.map((input) => {
    const size = input.parameters.binary_data_size;
    if (size === undefined) return tensorFromJson(input);
    at += size;
    if (at > binary.length) throw badInput(input.name, `has ${size} bytes in binary, but the request ends before them`);
    return tensorFromRaw(input, binary.subarray(at - size, at));
  });
  if (at === binary.length) return tensors;
  throw new AppError(
    "INVALID_REQUEST",
    `the request has ${binary.length - at} bytes in binary that belong to no input`,
  );
}

/** Numbers may be nested as the shape is; BYTES are text in base64, since JSON has nothing for bytes. */
function tensorFromJson({ name, datatype, shape, data }: JsonInput): Tensor {
  const elements = Array.isArray(data) ? data.flat(Number.POSITIVE_INFINITY) : [];
  const wrong = (kind: string) => badInput(name, `has data other than ${kind}`);
  switch (datatype) {
    case "UINT8":
      if (!elements.every((value) => Number.isInteger(value) && value >= 0 && value <= 255))
        throw wrong("whole numbers from 0 to 255");
      return checkedTensor({ name, shape, datatype, data: Uint8Array.from(elements) });
    case "FP32":
      if (!elements.every((value) => typeof value === "number")) throw wrong("numbers");
      return checkedTensor({ name, shape, datatype, data: Float32Array.from(elements) });
    case "BYTES":
      if (!elements.every((value) => typeof value === "string")) throw wrong("text in base64");
      return checkedTensor({ name, shape, datatype, data: elements.map((text) => Buffer.from(text, "base64")) });
    default:
      throw unsupported(name, datatype);
  }
}

interface Body {
  readonly json: Buffer;
  readonly binary: Buffer;
}

async function readBody(request: HttpRequest): Promise<Body> {
  const encoding = request.headers["content-encoding"] ?? "identity";
  if (encoding !== "identity") throw new AppError("INVALID_REQUEST", `content-encoding ${encoding} is not taken`);
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request) {
    length += (chunk as Buffer).length;
    if (length > maxBodyBytes) throw new AppError("INVALID_REQUEST", `the request has more than ${maxBodyBytes} bytes`);
    chunks.push(chunk as Buffer);
  }
  const body = Buffer.concat(chunks);
  const header = request.headers[jsonLengthHeader];
  if (header === undefined) return { json: body, binary: body.subarray(body.length) };
  const jsonLength = Number(header);
  if (Number.isInteger(jsonLength) && jsonLength >= 0 && jsonLength <= body.length) {
    return { json: body.subarray(0, jsonLength), binary: body.subarray(jsonLength) };
  }
  throw new AppError("INVALID_REQUEST", `${jsonLengthHeader} is ${header}, the request has ${body.length} bytes`);
}

function tensorReply(
  head: object,
  { outputs, isBinary }: { outputs: readonly Tensor[]; isBinary: (output: Tensor) => boolean },
): Reply {
  const binary: Uint8Array[] = [];
  const described = outputs.map((output) => {
    const { name, datatype, shape } = output;
    if (!isBinary(output)) return { name, datatype, shape, data: jsonData(output) };
    const raw = rawFromTensor(output);
    binary.push(raw);
    return { name, datatype, shape, parameters: { binary_data_size: raw.length } };
  });
  const answered = { ...head, outputs: described };
  if (binary.length === 0) return jsonReply(200, answered);
  const json = Buffer.from(JSON.stringify(answered));
  const headers = { "content-type": "application/octet-stream", [jsonLengthHeader]: String(json.length) };
  return { status: 200, headers, body: Buffer.concat([json, ...binary]) };
}

function jsonData({ datatype, data }: Tensor): unknown[] {
  return datatype === "BYTES" ? data.map((bytes) => Buffer.from(bytes).toString("utf8")) : Array.from(data);
}

function jsonReply(status: number, value: object): Reply {
  return { status, headers: { "content-type": "application/json" }, body: JSON.stringify(value) };
}

function send(response: HttpResponse, { status, headers, body }: Reply): void {
  response.writeHead(status, headers);
  response.end(body);
}

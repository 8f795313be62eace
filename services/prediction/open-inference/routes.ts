/** The Open Inference Protocol over gRPC. */
import {
  GRPCInferenceService,
  type InferParameter,
  type ModelInferRequest,
  type ModelRepositoryParameter,
  type ModelInferRequest_InferInputTensor as WireInput,
} from "../../../gen/inference/open_inference_pb.ts";
import { AppError } from "../../../lib/errors.ts";
import { type RpcService, rpcService } from "../../../lib/rpc/server.ts";
import { type ModelMetadata, maxTimeoutMicros, type OpenInference, serverMetadata } from "./inference.ts";
import type { RepositoryParameters } from "./repository.ts";
import { badInput, checkedTensor, rawFromTensor, type Tensor, tensorFromRaw, unsupported } from "./tensor.ts";

export function openInferenceRoutes(inference: OpenInference): RpcService {
  const { repository } = inference;
  return rpcService(GRPCInferenceService, {
    serverLive: () => ({ live: true }),
    serverReady: () => ({ ready: inference.ready() }),
    modelReady: ({ name, version }) => ({ ready: isReady(inference, name, version) }),
    serverMetadata: () => ({ ...serverMetadata, extensions: [...serverMetadata.extensions] }),
    modelMetadata: async ({ name, version }) => wireMetadata(await inference.metadata(name, version)),
    modelInfer: async (request, call) => {
      const { modelName, modelVersion, id, outputs: wanted } = request;
      const outputs = wanted.map(({ name }) => name);
      const routingKey = textParameter(request.parameters, "routing_key");
      const priority = wholeParameter(request.parameters, "priority", { min: 0, max: Number.MAX_SAFE_INTEGER });
      const timeoutMs = timeoutParameter(request.parameters);
      const asked = { modelName, modelVersion, inputs: tensorsOf(request), outputs, routingKey, priority, timeoutMs };
      const result = await inference.infer(asked, call);
      return {
        modelName: result.modelName,
        modelVersion: result.modelVersion,
        id,
        parameters: { prediction_ids: { parameterChoice: { case: "stringParam", value: result.predictionIds } } },
        outputs: result.outputs.map(({ name, datatype, shape }) => ({ name, datatype, shape: shape.map(BigInt) })),
        // Raw, which every client reads, and which costs a hundredth of numbers one by one.
        rawOutputContents: result.outputs.map(rawFromTensor),
      };
    },
    repositoryIndex: ({ ready }) => ({ models: [...repository.index(ready)] }),
    repositoryModelLoad: async ({ modelName, parameters }) => {
      await repository.load(modelName, plainParameters(parameters));
      return {};
    },
    repositoryModelUnload: ({ modelName, parameters }) => {
      repository.unload(modelName, plainParameters(parameters));
      return {};
    },
  });
}

/** Of a model or a version that there is not, Triton says that it is not ready, and its clients' is_model_ready is then false. */
function isReady(inference: OpenInference, name: string, version: string): boolean {
  try {
    return inference.modelReady(name, version);
  } catch (thrown) {
    if (thrown instanceof AppError && thrown.code === "MODEL_NOT_FOUND") return false;
    throw thrown;
  }
}

function plainParameters(parameters: Record<string, ModelRepositoryParameter>): RepositoryParameters {
  return Object.fromEntries(
    Object.entries(parameters).map(([name, { parameterChoice }]) => [name, parameterChoice.value]),
  );
}

/** A parameter that is a text or a whole number; empty if it is not given. */
function textParameter(parameters: Record<string, InferParameter>, name: string): string {
  const choice = parameters[name]?.parameterChoice;
  if (choice === undefined || choice.case === undefined) return "";
  if (choice.case === "stringParam" || choice.case === "int64Param") return String(choice.value);
  throw new AppError("INVALID_REQUEST", `parameter ${name} must be a text`, { details: { field: "parameters" } });
}

interface WholeNumber {
  readonly min: number;
  readonly max: number;
  /** What is counted, with its preposition. */
  readonly of?: string;
}

/** Undefined if it is not given. */
function wholeParameter(
  parameters: Record<string, InferParameter>,
  name: string,
  { min, max, of = "" }: WholeNumber,
): number | undefined {
  const choice = parameters[name]?.parameterChoice;
  if (choice === undefined) return undefined;
  const isWhole = choice.case === "int64Param" || choice.case === "uint64Param";
  if (isWhole && choice.value >= min && choice.value <= max) return Number(choice.value);
  const text = `parameter ${name} must be a whole number${of} from ${min} to ${max}`;
  throw new AppError("INVALID_REQUEST", text, { details: { field: "parameters" } });
}

/** In milliseconds; clients send microseconds, as Triton's do. */
function timeoutParameter(parameters: Record<string, InferParameter>): number | undefined {
  const micros = wholeParameter(parameters, "timeout", { min: 1, max: maxTimeoutMicros, of: " of microseconds" });
  return micros === undefined ? undefined : micros / 1_000;
}

function tensorsOf({ inputs, rawInputContents: raw }: ModelInferRequest): Tensor[] {
  if (raw.length === 0) return inputs.map(tensorFromContents);
  if (raw.length !== inputs.length || inputs.some(({ contents }) => contents !== undefined)) {
    const text = `${raw.length} raw_input_contents for ${inputs.length} inputs; there must be one for each, or none at all`;
    throw new AppError("INVALID_REQUEST", text, { details: { field: "raw_input_contents" } });
  }
  return inputs.map((input, index) => tensorFromRaw(headerOf(input), raw[index] ?? new Uint8Array()));
}

function tensorFromContents(input: WireInput): Tensor {
  const { name, datatype, shape } = headerOf(input);
  const { contents } = input;
  switch (datatype) {
    case "UINT8": {
      const values = contents?.uintContents ?? [];
      if (values.some((value) => value > 255)) throw badInput(name, "has a number above 255, which is no UINT8");
      return checkedTensor({ name, shape, datatype, data: Uint8Array.from(values) });
    }
    case "FP32":
      return checkedTensor({ name, shape, datatype, data: Float32Array.from(contents?.fp32Contents ?? []) });
    case "BYTES":
      return checkedTensor({ name, shape, datatype, data: contents?.bytesContents ?? [] });
    default:
      throw unsupported(name, datatype);
  }
}

const headerOf = ({ name, datatype, shape }: WireInput) => ({ name, datatype, shape: shape.map(Number) });

function wireMetadata({ inputs, outputs, versions, properties, ...rest }: ModelMetadata) {
  const wire = (tensors: ModelMetadata["inputs"]) =>
    tensors.map(({ name, datatype, shape }) => ({ name, datatype, shape: shape.map(BigInt) }));
  return {
    ...rest,
    versions: [...versions],
    properties: { ...properties },
    inputs: wire(inputs),
    outputs: wire(outputs),
  };
}

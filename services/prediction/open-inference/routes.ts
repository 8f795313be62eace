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
import { badInput, checkedTensor, rawFromTensor, type Tensor, tensorFromRaw, unsupported } from "./tensor.ts";

export function openInferenceRoutes(inference: OpenInference): RpcService {
  const { repository } = inference;
  return rpcService(GRPCInferenceService, {
    serverLive: () => ({ live: true }),
    serverReady: () => ({ ready: inference.ready() }),
    modelReady: ({ name, version }) => ({ ready: inference.modelReady(name, version) }),
    serverMetadata: () => ({ ...serverMetadata, extensions: [...serverMetadata.extensions] }),
    modelMetadata: async ({ name, version }) => wireMetadata(await inference.metadata(name, version)),
    modelInfer: async (request, call) => {
      const { modelName, modelVersion, id, outputs: wanted } = request;
      const outputs = wanted.map(({ name }) => name);
      const routingKey = textParameter(request.parameters, "routing_key");
      const timeoutMs = timeoutParameter(request.parameters);
      const asked = { modelName, modelVersion, inputs: tensorsOf(request), outputs, routingKey, timeoutMs };
      const result = await inference.infer(asked, call);
      return {
        modelName: result.modelName,
        modelVersion: result.modelVersion,
        id,
        outputs: result.outputs.map(({ name, datatype, shape }) => ({ name, datatype, shape: shape.map(BigInt) })),
        // Raw, which every client reads, and which costs a hundredth of numbers one by one.
        rawOutputContents: result.outputs.map(rawFromTensor),
      };
    },
    repositoryIndex: ({ ready }) => ({ models: [...repository.index(ready)] }),
    repositoryModelLoad: async ({ modelName, parameters }) => {
      await repository.load(modelName, textParameter(parameters, "version"));
      return {};
    },
    repositoryModelUnload: ({ modelName, parameters }) => {
      repository.unload(modelName, textParameter(parameters, "version"));
      return {};
    },
  });
}

/** A parameter that is a text or a whole number; empty if it is not given. */
function textParameter(parameters: Record<string, InferParameter | ModelRepositoryParameter>, name: string): string {
  const choice = parameters[name]?.parameterChoice;
  if (choice === undefined || choice.case === undefined) return "";
  if (choice.case === "stringParam" || choice.case === "int64Param") return String(choice.value);
  throw new AppError("INVALID_REQUEST", `parameter ${name} must be a text`, { details: { field: "parameters" } });
}

/** In milliseconds; clients send microseconds, as Triton's do. */
function timeoutParameter({ timeout }: Record<string, InferParameter>): number | undefined {
  const choice = timeout?.parameterChoice;
  if (choice === undefined) return undefined;
  const isNumber = choice.case === "int64Param" || choice.case === "uint64Param";
  if (isNumber && choice.value > 0 && choice.value <= maxTimeoutMicros) return Number(choice.value) / 1_000;
  const text = `parameter timeout must be a whole number of microseconds from 1 to ${maxTimeoutMicros}`;
  throw new AppError("INVALID_REQUEST", text, { details: { field: "parameters" } });
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
